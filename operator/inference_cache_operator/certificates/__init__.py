"""The webhook's own CA and certificate: decided (`deciding`), made (`issuing`), kept by the leader (`keeping`), served (`serving`)."""
