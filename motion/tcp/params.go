package tcp

import "time"

const (
	// defaultHost keeps an executor that was told nothing on this machine.
	defaultHost = "127.0.0.1"
	// defaultBacklog is gp_interconnect_tcp_listener_backlog unless set.
	defaultBacklog = 128

	// Unless gp_enable_interconnect_aggressive_retry is off, a connection that
	// is not made within retryFirst is tried anew, and again after as long;
	// from the retryFast-th time on after ever longer, up to retryLast, so that
	// a network as slow as that is connected too. Greenplum has 500 ms and 4 s.
	// The kernel alone would ask again after 1, 3, 7, 15 seconds, and give up
	// after two minutes.
	retryFirst = 500 * time.Millisecond
	retryFast  = 4
	retryLast  = 4 * time.Second

	// registerLimit is how long a connection may take to register: senders do
	// so at once.
	registerLimit = 10 * time.Second
	// maxRegistering bounds the connections that have not registered yet.
	maxRegistering = 1024
	// maxKept bounds the connections that are kept for a later Receive, and
	// the motions remembered because they failed before all had come. Both are
	// a few for each slice of a running query.
	maxKept = 16384
	// mostNamed is how many missing peers an error names.
	mostNamed = 4
	// dialling is how many connections one Send makes at a time.
	dialling = 64
	// acceptRetry is the pause after accept has failed, for want of
	// descriptors for example.
	acceptRetry = 100 * time.Millisecond
	// acceptQuiet is the least time between two messages about it.
	acceptQuiet = time.Minute
)
