package proxy

import (
	"container/list"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
)

// outside is what a proxy keeps of those it does not know.
type outside struct {
	current   atomic.Pointer[Times]
	anySource atomic.Bool
	origins   origins

	callers    strangers // on the peers' port
	locals     strangers // on the backends' socket
	rejections [numRejections]atomic.Uint64
}

// rejection is the kind of a connection that was closed because of who made it
// or what he said.
type rejection int

const (
	rejGarbage  rejection = iota // its first bytes are no hello
	rejSilent                    // it did not say hello in time
	rejCrowded                   // it was silent while too many others were
	rejUnlisted                  // no peer that the address list expects here
	rejAddress                   // a peer of the list, but not from its address
	rejUser                      // a process of another user on a unix socket
	numRejections
)

var rejectionNames = [numRejections]string{"garbage", "silent", "crowded", "unlisted", "address", "user"}

// refusal is an error of a kind.
type refusal struct {
	kind rejection
	code refuseCode // what a Trunkline dialler is told; 0 for nothing
	err  error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func refusef(kind rejection, code refuseCode, format string, args ...any) error {
	return &refusal{kind, code, fmt.Errorf(format, args...)}
}

// reject counts a refused connection and returns its kind and why, in words.
// It is false for one that closed without a word, as a probe does.
func (p *Proxy) reject(err error, within time.Duration) (kind rejection, why string, ok bool) {
	var r *refusal
	switch {
	case err == io.EOF, errors.Is(err, syscall.ECONNRESET):
		return 0, "", false
	case errors.As(err, &r):
		kind, why = r.kind, reason(r.err)
	case isTimeout(err):
		kind, why = rejSilent, fmt.Sprintf("it did not say hello within %v", within)
	default:
		kind, why = rejGarbage, reason(err)
	}
	p.rejections[kind].Add(1)
	return kind, why, true
}

// noHello puts the end of reading a first packet into a refusal, if it is one.
func noHello(err error) error {
	var bad *icwire.ProtocolError
	if errors.As(err, &bad) || err == io.ErrUnexpectedEOF {
		return &refusal{rejGarbage, 0, err}
	}
	return err
}

// maxStrangers is how many accepted connections may be waited for, on one
// listener, to say who they are. Of more, those that have been silent longest
// are closed.
const maxStrangers = 1024

// patienceFor is how long a stranger is not closed for another's sake: who has
// just come may have said hello already, and nobody has looked. A thousand
// backends do come at once.
const patienceFor = 100 * time.Millisecond

// strangers are the connections that have not said who they are, in the order
// in which they came. The zero value is none.
type strangers struct {
	mu    sync.Mutex
	order list.List // of *stranger
}

type stranger struct {
	conn    io.Closer
	came    time.Time
	evicted bool
	at      *list.Element
}

func (s *strangers) add(c io.Closer) *stranger {
	st := &stranger{conn: c, came: time.Now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.at = s.order.PushBack(st)
	s.trim(st.came)
	return st
}

// look closes the surplus.
func (s *strangers) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trim(time.Now())
}

func (s *strangers) trim(now time.Time) {
	for s.order.Len() > maxStrangers {
		old := s.order.Front().Value.(*stranger)
		if now.Sub(old.came) < patienceFor {
			return
		}
		s.evict(old)
	}
}

// remove is called when it has said hello, or will not.
func (s *strangers) remove(st *stranger) (evicted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.at != nil {
		s.order.Remove(st.at)
		st.at = nil
	}
	return st.evicted
}

func (s *strangers) evict(st *stranger) {
	s.order.Remove(st.at)
	st.at, st.evicted = nil, true
	st.conn.Close()
}

// makeRoom closes those silent longest, when descriptors have run out.
func (s *strangers) makeRoom() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range (s.order.Len() + 1) / 2 {
		s.evict(s.order.Front().Value.(*stranger))
	}
}

func (s *strangers) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.order.Len()
}

var errCrowded = &refusal{kind: rejCrowded, err: errors.New("it said nothing while too many others did not either")}
