package logical

import (
	"testing"
	"time"

	"github.com/trunkline-db/trunkline/icwire"
)

// A window never falls below the least one, however little of the budget is
// left: with none its sender would wait for ever.
func TestWindowHasAFloor(t *testing.T) {
	table := NewTable()
	table.Credit, table.RTT = true, time.Hour // so that every backend is quick
	table.Budget = NewBudget(1<<20, 0)
	// The other connections have grown by all there is.
	table.Budget.grown.Add(1 << 20)
	key := icwire.Key{Session: 1, Command: 1, Local: icwire.End{Dbid: 1, Pid: 1}, Remote: icwire.End{Content: 1, Dbid: 2, Pid: 2}}
	now := time.Unix(1000, 0)
	c, _, _, refused := table.Hello(key, now)
	if refused != "" {
		t.Fatal(refused)
	}
	if !c.Sent(1, 1) { // it sends first, and so has no window of its own
		t.Fatal("may not send")
	}
	may := uint64(MinWindow) // what the remote end may have sent
	for got := uint64(0); got < 4*GrowAfter; {
		n := int(min(may-got, 4096))
		if n == 0 {
			t.Fatalf("all %d bytes have been taken, and no more may be sent; the window is %d", got, c.window)
		}
		got += uint64(n)
		_, keep, units, e := table.Data(key, make([]byte, n), true, now)
		if !keep {
			t.Fatal("dropped")
		}
		may = max(may, e.Grant)
		e = table.Taken(c, n, units, now)
		may = max(may, e.Grant)
	}
	if c.window != MinWindow {
		t.Errorf("the window is %d, want %d", c.window, MinWindow)
	}
}
