"""How a server and a robot keep their promises, alone and under faults: two processes over loopback."""
