package proxied

import (
	"net"
	"sync"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/local"
)

// Loops are the connections between the executors of one instance that are in one
// process, an executor and itself among them: what they send to each other need not
// go through the proxy. The zero value is ready for use. Interconnects share it
// through their Config.
type Loops struct {
	mu    sync.Mutex
	other map[icwire.Key]*local.Conn // ends that have not been taken
}

// loops are an executor's share of Loops.
type loops struct {
	*Loops
	closed bool
	left   map[icwire.Key]bool // that others, or itself, are to take
}

// take returns the end that key names, the sender's or the receiver's.
func (l *loops) take(key icwire.Key) (*local.Conn, error) {
	if key.Local.Pid > key.Remote.Pid {
		key = key.Flip()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, net.ErrClosed
	}
	if c := l.other[key]; c != nil {
		delete(l.other, key)
		return c, nil
	}
	// What commands before this one have left nobody will take.
	l.forget(func(k icwire.Key) bool { return k.Command != key.Command })
	own, other, err := local.Pair()
	if err != nil {
		return nil, err
	}
	if l.other == nil {
		l.other = map[icwire.Key]*local.Conn{}
	}
	if l.left == nil {
		l.left = map[icwire.Key]bool{}
	}
	l.other[key], l.left[key] = other, true
	return own, nil
}

// forget closes ends that this executor has left. l.mu is held.
func (l *loops) forget(which func(icwire.Key) bool) {
	for k := range l.left {
		if !which(k) {
			continue
		}
		if c := l.other[k]; c != nil {
			c.Close()
			delete(l.other, k)
		}
		delete(l.left, k)
	}
}

func (l *loops) close() {
	if l.Loops == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.forget(func(icwire.Key) bool { return true })
}
