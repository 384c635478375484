"""The forwarder: its policy as a table, its sockets against real DNS servers on loopback."""
