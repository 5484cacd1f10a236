package proxied

import (
	"net"
	"sync"

	"github.com/trunkline-db/trunkline/icwire"
	"github.com/trunkline-db/trunkline/internal/local"
)

// loops are the connections of an executor with itself of which only one end
// has been taken.
type loops struct {
	mu     sync.Mutex
	closed bool
	other  map[icwire.Key]*local.Conn
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
	for k, c := range l.other {
		if k.Command != key.Command {
			c.Close()
			delete(l.other, k)
		}
	}
	own, other, err := local.Pair()
	if err != nil {
		return nil, err
	}
	if l.other == nil {
		l.other = map[icwire.Key]*local.Conn{}
	}
	l.other[key] = other
	return own, nil
}

func (l *loops) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, c := range l.other {
		c.Close()
	}
	l.other = nil
}
