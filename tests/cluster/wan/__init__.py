"""The small internet behind the laptops: DNS for `example.test` and a web server, in a namespace that leads nowhere."""
