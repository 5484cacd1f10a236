package instance

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/trunkline-db/trunkline/datadir"
)

// State is how far an instance or one of its children is.
type State string

// The states. A child that waits to be started again is Down.
const (
	Starting State = "starting"
	Ready    State = "ready"
	Stopping State = "stopping"
	Down     State = "down"
)

// ChildStatus tells of one child process.
type ChildStatus struct {
	Pid      int   `json:"pid"` // 0 when it does not run
	State    State `json:"state"`
	Restarts int   `json:"restarts"` // times it died and was started again

	started bool
}

// Status is what a running instance says of itself.
type Status struct {
	Dbid     uint16      `json:"dbid"`
	Content  int16       `json:"content"`
	Pid      int         `json:"pid"`
	State    State       `json:"state"`
	Standby  bool        `json:"standby"`
	Postgres ChildStatus `json:"postgres"`
	Proxy    ChildStatus `json:"proxy"`
	Sessions int         `json:"sessions"`
	// SyncStandby is synchronous_standby_names of the coordinator's server:
	// "*" while commits wait for the standby.
	SyncStandby string `json:"sync_standby"`
	// Reloaded is when the last finished reload began, zero before the first:
	// what was in the files then is in force.
	Reloaded  time.Time `json:"reloaded"`
	LastError string    `json:"last_error"` // last thing that went wrong
}

// statusSocket gives a JSON [Status] to whoever connects.
func statusSocket(dir datadir.Dir) string { return filepath.Join(dir.Private(), "instance.sock") }

// ReadStatus asks the running instance for its status. The error is that of
// the connection when nothing listens.
func ReadStatus(ctx context.Context, dir datadir.Dir) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", statusSocket(dir))
	if err != nil {
		return Status{}, err
	}
	defer c.Close()
	if t, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(t)
	}
	var st Status
	if err := json.NewDecoder(io.LimitReader(c, 1<<20)).Decode(&st); err != nil {
		return Status{}, fmt.Errorf("status of %s: %w", dir, err)
	}
	return st, nil
}

// board holds the status and answers on the status socket.
type board struct {
	mu       sync.Mutex
	st       Status
	sessions func() int

	ln net.Listener
	wg sync.WaitGroup
}

// update changes the status.
func (b *board) update(f func(*Status)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.st)
}

func (b *board) get() Status {
	b.mu.Lock()
	st, sessions := b.st, b.sessions
	b.mu.Unlock()
	if sessions != nil {
		st.Sessions = sessions()
	}
	return st
}

// listen starts answering. The caller holds the instance's lock, so a socket
// file that is there belongs to nobody.
func (b *board) listen(dir datadir.Dir) error {
	path := statusSocket(dir)
	_ = os.Remove(path)
	ln, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	_ = os.Chmod(path, 0o700)
	b.ln = ln
	b.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(time.Second))
			_ = json.NewEncoder(c).Encode(b.get())
			_ = c.Close()
		}
	})
	return nil
}

func (b *board) close() {
	_ = b.ln.Close() // removes the socket file
	b.wg.Wait()
}
