package tcp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trunkline-db/trunkline/internal/testkit/deaf"
	"github.com/trunkline-db/trunkline/motion"
)

// TestAggressiveRetry: connections that a full listener does not take are made
// anew soon, unless the parameter is off, and the motion opens once there is
// room.
func TestAggressiveRetry(t *testing.T) {
	fd, at := deaf.Listen(t)
	addr := at.String()
	logged := make(chan string, 1000)
	m, err := New(Config{Log: func(m string) { logged <- m }, SlowRetry: true})
	if err != nil {
		t.Fatal(err)
	}
	ic := m.(*Interconnect)
	defer ic.Close()
	const receivers = 5
	all := make([]motion.Peer, receivers)
	for i := range all {
		all[i] = motion.Peer{Content: 3, Addr: addr}
	}

	ctx, cancel := context.WithTimeout(t.Context(), retryFirst+200*time.Millisecond)
	defer cancel()
	if _, err := ic.Send(ctx, motion.ID{}, motion.Peer{}, all); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a motion to a full listener: %v", err)
	}
	select {
	case m := <-logged:
		t.Errorf("tried again though it is off: %s", m)
	default:
	}

	if err := ic.Tune(Tuning{}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		s, err := ic.Send(t.Context(), motion.ID{}, motion.Peer{}, all)
		if err == nil {
			s.Abort()
		}
		done <- err
	}()
	select {
	case m := <-logged:
		want := fmt.Sprintf("Interconnect timeout: Connection to seg3 %s was not complete after ", addr)
		if !strings.HasPrefix(m, want) || !strings.HasSuffix(m, "ms.  Will retry.") {
			t.Errorf("logged %q", m)
		}
	case err := <-done:
		t.Fatalf("the motion opened: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("not tried again")
	}
	stop := make(chan struct{})
	accepting := make(chan struct{})
	go func() { // room at last; those of before are among them
		defer close(accepting)
		_ = unix.SetNonblock(fd, true)
		for {
			conn, _, err := unix.Accept(fd)
			if err == nil {
				defer unix.Close(conn)
				continue
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	if err := <-done; err != nil {
		t.Errorf("once there was room: %v", err)
	}
	close(stop)
	<-accepting
}
