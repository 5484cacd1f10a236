package motion_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/trunkline-db/trunkline/motion"
	"github.com/trunkline-db/trunkline/motion/tcp"
)

func TestBare(t *testing.T) {
	for message, want := range map[string]bool{
		"interconnect error: connection closed prematurely":                                 true,
		"interconnect error: connection closed prematurely (seg1 slice2 127.0.0.1:1 pid=3)": true,
		"interconnect error: connection closed prematurely: the proxy of seg1 is gone":      false,
		"interconnect error writing an outgoing packet: broken pipe":                        true,
		"interconnect error reading an incoming packet":                                     true,
		"Interconnect timeout: Unable to complete setup":                                    false,
		"": false,
	} {
		if got := motion.Bare(message); got != want {
			t.Errorf("Bare(%q) is %v", message, got)
		}
	}
}

func TestError(t *testing.T) {
	err := motion.Errorf("interconnect error: %w at seg%d", io.ErrUnexpectedEOF, 3)
	if err.Code != "58M01" || err.Error() != "interconnect error: unexpected EOF at seg3" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%+v", err)
	}
	err.Detail = "more"
	if got := err.Error(); got != "interconnect error: unexpected EOF at seg3 (more)" {
		t.Error(got)
	}
	if got := (motion.Peer{Content: -1, Dbid: 1, Pid: 42}).String(); got != "seg-1:dbid1:p42" {
		t.Error(got)
	}
}

// A gather motion from two executors to one, here all in one process.
func Example() {
	ctx := context.Background()
	var ics []motion.Interconnect
	var peers []motion.Peer
	for i := range 3 {
		ic, err := tcp.New(tcp.Config{})
		if err != nil {
			fmt.Println(err)
			return
		}
		defer ic.Close()
		ics = append(ics, ic)
		peers = append(peers, motion.Peer{Content: int16(i - 1), Dbid: uint16(i + 1), Pid: 100, Addr: ic.Addr()})
	}
	coordinator, segments := peers[:1], peers[1:]
	id := motion.ID{Session: 7, Command: 1, SendSlice: 1, RecvSlice: 0}

	var wg sync.WaitGroup
	defer wg.Wait()
	for i, self := range segments {
		wg.Go(func() {
			s, err := ics[1+i].Send(ctx, id, self, coordinator)
			if err != nil {
				fmt.Println(err)
				return
			}
			defer s.Abort() // does nothing after Close
			for row := range 2 {
				if err := s.Send(ctx, 0, fmt.Appendf(nil, "row %d of segment %d", row, self.Content)); err != nil {
					fmt.Println(err)
					return
				}
			}
			if err := s.Close(ctx); err != nil {
				fmt.Println(err)
			}
		})
	}

	r, err := ics[0].Receive(ctx, id, coordinator[0], segments)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Abort()
	for {
		tuple, _, err := r.Receive(ctx)
		if err == io.EOF {
			break
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(string(tuple))
	}
	if err := r.Close(ctx); err != nil {
		fmt.Println(err)
	}
	// Unordered output:
	// row 0 of segment 0
	// row 1 of segment 0
	// row 0 of segment 1
	// row 1 of segment 1
}
