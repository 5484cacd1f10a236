// Package auth is the server side of the beginning of a PostgreSQL client
// connection, up to AuthenticationOk: encryption and cancel requests, the
// startup message and its options, pg_hba.conf, and the proof of identity.
// It speaks and refuses as PostgreSQL 15 does, message for message.
//
// What follows AuthenticationOk (ParameterStatus, BackendKeyData,
// ReadyForQuery, and whether the database exists) is the session's business.
//
// Methods of pg_hba.conf: trust, reject, scram-sha-256 (with channel binding
// where the connection is encrypted), md5, password, cert, and on unix sockets
// peer (also written ident); the options clientcert, clientname and map. The
// other methods PostgreSQL knows are accepted in the file, and a connection that
// meets one is refused with an error naming the line.
package auth
