package proxied

import "time"

const (
	// defaultRestart is a little longer than an instance takes to start its
	// proxy again, and leaves time to answer within two seconds.
	defaultRestart = 1500 * time.Millisecond
	// retryEvery is how often Greenplum's backends look for the socket.
	retryEvery = 100 * time.Millisecond
	// ackLimit is how long a proxy that took the connection may take to
	// answer. It does so at once unless an older connection of the same name
	// is still closing.
	ackLimit = 10 * time.Second
	// causeLimit bounds the question to the proxy's status before there is a
	// connection to lose.
	causeLimit = 300 * time.Millisecond
	// mostKept is how many connections an executor keeps for each purpose: a
	// statement seldom has more motions that begin at the same time.
	mostKept = 4
	// earBuffer is how much of the proxy's answers is read at once: those of many
	// senders, or the few rows of a short query.
	earBuffer = 4 << 10
	// dialling is how many connections one Send or Receive makes at a time.
	dialling = 64
)
