package dispatch

import (
	"errors"
	"testing"

	"github.com/trunkline-db/trunkline/motion"
)

// TestRank: what is likelier to be the cause of a failure comes later here.
func TestRank(t *testing.T) {
	for i, all := range [][]error{
		{newError(codeCanceled, "canceling statement due to user request", nil)},
		{
			newError(motion.CodeInterconnect, "interconnect error: connection closed prematurely (seg1 slice1 127.0.0.1:6001 pid=4)", nil),
			newError(motion.CodeInterconnect, "interconnect error writing an outgoing packet: broken pipe", nil),
			newError(motion.CodeInterconnect, "interconnect error reading an incoming packet", nil),
		},
		{
			newError(motion.CodeInterconnect, "interconnect error: connection closed prematurely: the proxy of seg1 has gone", nil),
			newError(motion.CodeInterconnect, "interconnect encountered a network error, please check your network (seg1 slice1 127.0.0.1:6001 pid=4)", nil),
			newError(motion.CodeInterconnect, "Interconnect error writing an outgoing packet: network is down", nil),
		},
		{newError("22012", "division by zero", nil), newError(codeCanceled, "canceling statement due to statement timeout (seg1 127.0.0.1:6001 pid=4)", nil), errors.New("the connection was lost")},
	} {
		for _, err := range all {
			if got := rank(err); got != i+1 {
				t.Errorf("%v has rank %d, expected %d", err, got, i+1)
			}
		}
	}
}
