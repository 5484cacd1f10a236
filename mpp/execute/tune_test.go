package execute

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/mpp/execute/executetest"
)

// TestTune: what an executor's motions obey: its startup parameters, then what
// the dispatcher says, and what its instance's file says of the rest, reloads
// included.
func TestTune(t *testing.T) {
	if server == nil {
		t.Skip("no PostgreSQL")
	}
	var cache atomic.Value
	cache.Store("off")
	l, err := executetest.Listen(server.Dir)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(Config{Dir: server.Dir, Dbid: 2, Own: func() map[string]string {
		// The queue is the dispatcher's to set, whatever the file says.
		return map[string]string{guc.CacheFuture: cache.Load().(string), guc.QueueDepth: "77"}
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	conn := connect(t, map[string]string{guc.QueueDepth: "9", guc.MaxPacketSize: "1024"})
	simple(t, conn, "SELECT 1") // it is registered
	now := func() *settings {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, q := range s.sessions {
			return q.ic.(*Interconnect).now.Load()
		}
		t.Fatal("no session")
		return nil
	}
	if n := now(); n.udp.QueueDepth != 9 || n.packet != 1024 || !n.udp.DropFuture {
		t.Errorf("at the start: %+v", n)
	}
	tune := func(params map[string]string) error {
		t.Helper()
		text, err := TuneQuery(params)
		if err != nil {
			t.Fatal(err)
		}
		_, err = conn.Exec(bounded(t), text).ReadAll()
		return err
	}
	if err := tune(map[string]string{guc.QueueDepth: "10", guc.MaxPacketSize: "2048"}); err != nil {
		t.Fatal(err)
	}
	if n := now(); n.udp.QueueDepth != 10 || n.packet != 1024 || !n.udp.DropFuture {
		t.Errorf("tuned: %+v", n)
	}
	err = tune(map[string]string{guc.QueueDepth: "11", guc.MinRTO: "0"})
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "22023" {
		t.Errorf("a wrong value: %v", err)
	}
	cache.Store("on")
	s.Reload()
	if n := now(); n.udp.QueueDepth != 10 || n.udp.DropFuture {
		t.Errorf("after a reload: %+v", n)
	}
	if _, err := conn.Exec(bounded(t), TuneMarker+"{").ReadAll(); !errors.As(err, &pe) || pe.Code != "08P01" {
		t.Errorf("nonsense: %v", err)
	}
	// In a transaction that has failed, too: parameters are not PostgreSQL's.
	_, _ = conn.Exec(bounded(t), "BEGIN; SELECT 1/0").ReadAll()
	if err := tune(map[string]string{guc.QueueDepth: "12"}); err != nil || conn.TxStatus() != 'E' || now().udp.QueueDepth != 12 {
		t.Errorf("in a failed transaction: %v, %c, %+v", err, conn.TxStatus(), now())
	}
}
