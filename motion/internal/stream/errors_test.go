package stream

import (
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/trunkline-db/trunkline/motion"
)

// TestWriteError is in Greenplum's words, with or without an error number.
func TestWriteError(t *testing.T) {
	peer := motion.Peer{Content: 1, Addr: "10.0.0.1:5"}
	to := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 5}
	for _, c := range []struct {
		err  error
		want string
	}{
		{&net.OpError{Op: "write", Net: "tcp", Addr: to, Err: os.NewSyscallError("write", syscall.ENETDOWN)},
			"interconnect error writing an outgoing packet: network is down (Error during send() call (error:100) for Remote Connection: contentId=1 at 10.0.0.1:5)"},
		{net.ErrClosed,
			"interconnect error writing an outgoing packet: use of closed network connection (Error during send() call for Remote Connection: contentId=1 at 10.0.0.1:5)"},
	} {
		if e := writeError(peer, c.err); e.Error() != c.want || e.Code != motion.CodeInterconnect {
			t.Errorf("%s %v, want %s", e.Code, e, c.want)
		}
	}
}
