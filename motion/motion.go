package motion

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// ID names one motion of one query: the sending and receiving slice of a
// command of a session. Slice indexes are those of the slice table; the
// coordinator's root slice is 0.
type ID struct {
	Session   int32
	Command   uint32
	SendSlice int16
	RecvSlice int16
}

// Peer is one executor at an end of a motion.
type Peer struct {
	Content int16
	Dbid    uint16
	// Pid tells the executors of one instance apart. It need not be a
	// process id, but must be unique among the instance's live executors.
	Pid int32
	// Addr is where the executor's listener is, as Interconnect.Addr said.
	// Empty for types that need none.
	Addr string
}

func (p Peer) String() string {
	return fmt.Sprintf("seg%d:dbid%d:p%d", p.Content, p.Dbid, p.Pid)
}

// Interconnect is one executor's access to motions of one type. It is made
// once per executor (a session's QE on an instance, or its QD) and serves all
// its motions. Its methods may be called concurrently.
type Interconnect interface {
	// Type is the name of the type: "tcp", "proxy" or "udpifc".
	Type() string
	// Addr is what senders need to reach this executor as a receiver; it
	// travels to them with the slice table. Empty where nothing is needed.
	Addr() string
	// Send opens the sending end towards receivers, in the order in which
	// Sender.Send will number them. It returns when the streams may be
	// written; ctx bounds set-up only.
	Send(ctx context.Context, id ID, self Peer, receivers []Peer) (Sender, error)
	// Receive opens the receiving end of all senders. It must be called
	// before or within gp_interconnect_setup_timeout of the senders' Send;
	// the order of the two sides does not matter. ctx bounds set-up only.
	Receive(ctx context.Context, id ID, self Peer, senders []Peer) (Receiver, error)
	// Close ends every motion that is still open and frees the listener.
	Close() error
}

// ErrStopped is returned by Sender.Send when the receiver wants no more rows
// (early stop, LIMIT reached). It is not a failure.
var ErrStopped = errors.New("motion: the receiver has stopped the stream")

// Sender is the sending end of a motion in one executor. One goroutine at a
// time may use it, except Abort, which may be called from any.
type Sender interface {
	// Send hands one tuple to receiver `to`. The bytes are copied before it
	// returns. It may buffer; it blocks while that receiver has no room, until
	// ctx ends. After ErrStopped from one receiver the others go on.
	Send(ctx context.Context, to int, tuple []byte) error
	// Broadcast is Send to every receiver that has not stopped; ErrStopped
	// only when all have.
	Broadcast(ctx context.Context, tuple []byte) error
	// Flush pushes out what is buffered, without ending the stream.
	Flush(ctx context.Context) error
	// Stopped says whether every receiver has asked to stop.
	Stopped() bool
	// Close sends end of stream to all and waits until each receiver has
	// closed, ctx ends, or gp_interconnect_transmit_timeout has passed. Type
	// proxy waits only until the proxy has taken all of it: when it is lost
	// after that, the receiver fails, provided that its Receive had returned
	// before the sender closed.
	Close(ctx context.Context) error
	// Abort closes at once without end of stream, so that the receivers fail.
	Abort()
}

// Meter is what the senders of the three types are, too.
type Meter interface {
	// Filled is how many bytes and packets the tuples handed over so far have
	// filled, to all receivers: packets of gp_max_packet_size or less, their
	// headers included. What is sent again counts once. The sender's user may
	// call it before Close.
	Filled() (bytes, packets int64)
}

// Receiver is the receiving end of a motion in one executor. One goroutine at
// a time may use it, except Abort, which may be called from any.
type Receiver interface {
	// Receive returns the next tuple of any sender. The tuple is valid until
	// the next call. io.EOF after every sender's end of stream; *Error when a
	// stream ended before it. It waits until ctx ends.
	Receive(ctx context.Context) (tuple []byte, from int, err error)
	// ReceiveFrom returns the next tuple of one sender; io.EOF after its end
	// of stream.
	ReceiveFrom(ctx context.Context, sender int) (tuple []byte, err error)
	// Stop asks the senders to send no more (early stop). Close follows.
	Stop()
	// Close ends the motion in order; after Stop it drains what is in flight.
	// It does not wait longer than ctx.
	Close(ctx context.Context) error
	// Abort closes at once; senders see a failed connection.
	Abort()
}

// Error is a failure of the interconnect as SQL sees it.
type Error struct {
	Code    string // SQLSTATE; 58M01 (gp_interconnection_error) unless said otherwise
	Message string
	Detail  string // may be empty
	Hint    string // may be empty
	Err     error  // cause; may be nil
}

// CodeInterconnect is ERRCODE_GP_INTERCONNECTION_ERROR (facts, section 4.4).
const CodeInterconnect = "58M01"

func (e *Error) Error() string {
	s := e.Message
	if e.Detail != "" {
		s += " (" + e.Detail + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// closedEarly is the interconnect's word for "the other side went away". Where
// the cause is known it follows after a colon.
const closedEarly = "interconnect error: connection closed prematurely"

// broken are the beginnings of errors that say only that a connection broke.
var broken = []string{closedEarly, "interconnect error writing", "interconnect error reading"}

// Bare says whether the message of an error with CodeInterconnect tells of a
// broken connection and not what broke it: that is most often the consequence
// of another failure, which says more.
func Bare(message string) bool {
	for _, b := range broken {
		if rest, ok := strings.CutPrefix(message, b); ok {
			return b != closedEarly || !strings.HasPrefix(rest, ":")
		}
	}
	return false
}

// Errorf makes an *Error with CodeInterconnect; a %w operand becomes its cause.
func Errorf(format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: CodeInterconnect, Message: err.Error(), Err: errors.Unwrap(err)}
}
