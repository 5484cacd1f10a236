package tcp

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunkline-db/trunkline/motion"
)

// backlog is what the kernel has as the listener's.
func backlog(t *testing.T, ic *Interconnect) int {
	t.Helper()
	raw, err := ic.ln.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	if cerr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return int(info.Sacked) // of a listening socket
}

func TestTune(t *testing.T) {
	var warned []*motion.Error
	m, err := New(Config{Backlog: 5, Warn: func(e *motion.Error) { warned = append(warned, e) }})
	if err != nil {
		t.Fatal(err)
	}
	ic := m.(*Interconnect)
	defer ic.Close()
	if ic.Addr() == "" {
		t.Fatal("no listener")
	}
	if n := backlog(t, ic); n != 5 {
		t.Errorf("the listener's backlog is %d, expected 5", n)
	}
	if err := ic.Tune(Tuning{Backlog: 65536}); err == nil || !strings.Contains(err.Error(), "65536") {
		t.Errorf("a backlog of 65536: %v", err)
	}
	for _, c := range []struct{ given, want int }{{-1, 0}, {0, defaultBacklog}, {1, 1}} {
		if err := ic.Tune(Tuning{Backlog: c.given}); err != nil {
			t.Fatal(err)
		}
		if n := backlog(t, ic); n != c.want {
			t.Errorf("the listener's backlog after %d is %d, expected %d", c.given, n, c.want)
		}
	}

	// A motion keeps the setup timeout it was opened with.
	open := func(id int16, senders ...motion.Peer) motion.Receiver {
		t.Helper()
		r, err := ic.Receive(t.Context(), motion.ID{SendSlice: id}, motion.Peer{Content: -1}, senders)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	patient := open(1, motion.Peer{})
	if err := ic.Tune(Tuning{Backlog: 1, SetupTimeout: 20 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	hasty := open(2, motion.Peer{}, motion.Peer{Content: 1})
	_, _, err = hasty.Receive(t.Context())
	var me *motion.Error
	if !errors.As(err, &me) || !strings.HasPrefix(me.Message, "Interconnect timeout") || !strings.HasPrefix(me.Detail, "Completed 0 of 2 incoming") {
		t.Errorf("after the setup timeout: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := patient.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) || err == io.EOF {
		t.Errorf("the older motion: %v, expected it to wait on", err)
	}
	patient.Abort()
	if len(warned) != 1 || warned[0].Code != "01000" || !strings.Contains(warned[0].Message, "too many expected incoming connections(2)") {
		t.Errorf("two senders and a backlog of 1: warned %v", warned)
	}
}
