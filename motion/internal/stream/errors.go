package stream

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
)

// ClosedPrematurely is the error for a connection that ended before its
// stream did, or that could not be made. cause says why, by name; "" when
// nobody knows.
func ClosedPrematurely(peer motion.Peer, cause string, err error) *motion.Error {
	e := &motion.Error{
		Code:    motion.CodeInterconnect,
		Message: "interconnect error: connection closed prematurely",
		Detail:  fmt.Sprintf("from Remote Connection: contentId=%d at %s", peer.Content, At(peer)),
		Err:     err,
	}
	if cause != "" {
		e.Message += ": " + cause
	}
	return e
}

// At says where a peer is: its address, or its name where it has none.
func At(peer motion.Peer) string {
	if peer.Addr != "" {
		return peer.Addr
	}
	return peer.String()
}

func writeError(peer motion.Peer, err error) *motion.Error {
	number := ""
	var errno syscall.Errno
	if errors.As(err, &errno) {
		number = fmt.Sprintf(" (error:%d)", int(errno))
		err = errno // without addresses, which the detail has
	}
	return &motion.Error{
		Code:    motion.CodeInterconnect,
		Message: fmt.Sprintf("interconnect error writing an outgoing packet: %v", err),
		Detail:  fmt.Sprintf("Error during send() call%s for Remote Connection: contentId=%d at %s", number, peer.Content, At(peer)),
		Err:     err,
	}
}

func readError(peer motion.Peer, err error) *motion.Error {
	return &motion.Error{
		Code:    motion.CodeInterconnect,
		Message: "interconnect error reading an incoming packet",
		Detail:  fmt.Sprintf("read from seg%d at %s: %v", peer.Content, At(peer), err),
		Err:     err,
	}
}

// parseError is for bytes that are no packet or no chunk; left is how many
// bytes there were to parse.
func parseError(err error, left int) *motion.Error {
	e := &motion.Error{
		Code:    motion.CodeInterconnect,
		Message: "interconnect error parsing message",
		Detail:  err.Error(),
		Err:     err,
	}
	if left < icwire.ChunkHeaderLen {
		e.Message += ": insufficient data received"
	}
	return e
}

func teardownTimeout(pending int, after time.Duration) *motion.Error {
	return &motion.Error{
		Code:    motion.CodeInterconnect,
		Message: "timed out waiting for response from motion receiver during TCP interconnect teardown",
		Detail:  fmt.Sprintf("%d connection(s) with pending response after %d seconds", pending, int(after.Seconds())),
	}
}

// errAborted is what the other methods return after Abort.
var errAborted error = &motion.Error{
	Code:    motion.CodeInterconnect,
	Message: "interconnect error: the motion was aborted",
	Err:     net.ErrClosed,
}
