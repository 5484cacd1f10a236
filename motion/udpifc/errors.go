package udpifc

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/udpifc/link"
)

var (
	errClosed = motion.Errorf("interconnect error: the executor's interconnect is closed: %w", net.ErrClosed)
	// errAborted is what the other methods return after Abort.
	errAborted error = &motion.Error{
		Code:    motion.CodeInterconnect,
		Message: "interconnect error: the motion was aborted",
		Err:     net.ErrClosed,
	}
)

const (
	networkError   = "interconnect encountered a network error, please check your network"
	networkWarning = "interconnect may encountered a network error, please check your network"
)

// closedPrematurely is for a peer that has failed before its stream ended.
func closedPrematurely(peer motion.Peer) *motion.Error {
	return &motion.Error{
		Code:    motion.CodeInterconnect,
		Message: "interconnect error: connection closed prematurely",
		Detail:  fmt.Sprintf("from Remote Connection: contentId=%d at %s", peer.Content, at(peer)),
	}
}

// at says where a peer is: its address, or its name where it has none.
func at(peer motion.Peer) string {
	if peer.Addr != "" {
		return peer.Addr
	}
	return peer.String()
}

// unanswered is for a receiver that acknowledges nothing any more.
func unanswered(peer motion.Peer, t *link.Timeout) *motion.Error {
	e := &motion.Error{Code: motion.CodeInterconnect, Message: networkError}
	if t.Retries > 0 {
		e.Detail = fmt.Sprintf("Failed to send packet (seq %d) to %s (pid %d cid %d) after %d retries in %d seconds.",
			t.Seq, at(peer), peer.Pid, peer.Content, t.Retries, int(t.After.Seconds()))
	} else {
		e.Detail = fmt.Sprintf("Did not get any response from %s (pid %d cid %d) in %d seconds.",
			at(peer), peer.Pid, peer.Content, int(t.After.Seconds()))
	}
	return e
}

func retryWarning(peer motion.Peer, p *link.Packet) *motion.Error {
	return &motion.Error{
		Code:    "01000",
		Message: networkWarning,
		Detail:  fmt.Sprintf("Failed to send packet (seq %d) to %s (pid %d cid %d) after %d retries.", p.Seq, at(peer), peer.Pid, peer.Content, p.Tries),
	}
}

// teardownTimeout is for receivers that answer but do not read.
func teardownTimeout(pending int, after time.Duration) *motion.Error {
	return &motion.Error{
		Code:    motion.CodeInterconnect,
		Message: "timed out waiting for response from motion receiver during UDP interconnect teardown",
		Detail:  fmt.Sprintf("%d connection(s) with pending response after %d seconds", pending, int(after.Seconds())),
	}
}

func sendError(peer motion.Peer, size int, err error) *motion.Error {
	e := &motion.Error{
		Code:    motion.CodeInterconnect,
		Message: fmt.Sprintf("Interconnect error writing an outgoing packet: %v", err),
		Detail:  fmt.Sprintf("Error during sendto() call for Remote Connection: contentId=%d at %s", peer.Content, at(peer)),
		Err:     err,
	}
	if errors.Is(err, syscall.EMSGSIZE) {
		e.Hint = fmt.Sprintf("The packet of %d bytes is too long for the network: lower gp_max_packet_size.", size)
	}
	return e
}

func receiveError(err error) *motion.Error {
	return &motion.Error{
		Code:    motion.CodeInterconnect,
		Message: "interconnect encountered an error",
		Detail:  fmt.Sprintf("%v: in receive background thread", err),
		Err:     err,
	}
}

// parseError is for bytes that are no chunk; left is how many there were.
func parseError(err error, left int) *motion.Error {
	e := &motion.Error{Code: motion.CodeInterconnect, Message: "interconnect error parsing message", Detail: err.Error(), Err: err}
	if left < icwire.ChunkHeaderLen {
		e.Message += ": insufficient data received"
	}
	return e
}
