// Package cluster makes, starts, stops and removes the embedded cluster: a
// coordinator, its standby and primaries on one machine, each a real
// PostgreSQL server under an instance process (package instance).
//
// A cluster is one directory:
//
//	DIR/gp_segment_configuration   its instances, one a line
//	DIR/env.sh                     environment for psql and the utilities
//	DIR/bin                        a copy of the program, and links to it
//	DIR/pgsql                      link to PostgreSQL's programs
//	DIR/coordinator/gpseg-1        data directory of the coordinator
//	DIR/primary/gpseg0 …           of the primaries
//	DIR/standby/gpseg-1            of the standby
//
// PostgreSQL refuses to run as root. When root makes a cluster, all of it
// belongs to the operating system user "postgres" and runs as that user.
package cluster
