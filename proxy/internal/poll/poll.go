// Package poll keeps somebody waiting for network events.
//
// The Go scheduler asks the kernel for them when a thread finds nothing else to
// run. The goroutine that a thread gets by asking takes the thread along; if it
// then copies data for milliseconds, nobody asks any more, and a backend that
// connects meanwhile waits until the runtime's monitor looks, every 10 ms.
// Measured beside eight heavy streams, the 99th percentile of a logical
// connection's setup was 12 ms with that and 6 ms without.
package poll

import (
	"sync/atomic"
	"time"
)

// every is how often at most a thread is woken. It costs some microseconds of
// processor time, and half a millisecond is too short for anybody to notice.
const every = 500 * time.Microsecond

var (
	epoch = time.Now()
	last  atomic.Int64
)

// Relieve is called by a goroutine that has waited for the network and may be
// busy from now on: it has the scheduler wake a thread, if a processor is
// there for it, which finds nothing to run and waits for events.
func Relieve() {
	now := int64(time.Since(epoch))
	if was := last.Load(); now-was >= int64(every) && last.CompareAndSwap(was, now) {
		go nothing()
	}
}

func nothing() {}
