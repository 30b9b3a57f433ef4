"""How every selected pod stands, and what would put it right. Pure: pods, workloads and what is known of them in, decisions out."""
