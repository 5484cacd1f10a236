package dispatch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestChaos commits over all segments while servers and executors are killed
// at random. In the end every transaction must be everywhere or nowhere, and
// those that were reported as committed everywhere.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("takes several seconds")
	}
	c := newCluster(t, Params{ConnectTimeout: 3 * time.Second, CommitRetry: time.Second, RecoverEvery: 100 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	var bg sync.WaitGroup
	bg.Go(func() { _ = c.Recover(ctx) })
	c.table("chaos")

	stop := make(chan struct{})
	var writers sync.WaitGroup
	var mu sync.Mutex
	acked := make(map[string]bool)
	tries := 0
	for w := range 3 {
		writers.Go(func() {
			g := c.gang()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprint(w*1000000 + i)
				err := commitEverywhere(ctx, g, id)
				mu.Lock()
				tries++
				if err == nil {
					acked[id] = true
				}
				mu.Unlock()
			}
		})
	}
	rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	kills := 0
	for end := time.Now().Add(6 * time.Second); time.Now().Before(end); kills++ {
		time.Sleep(time.Duration(100+rnd.IntN(400)) * time.Millisecond)
		victim := rnd.IntN(nsegs + 1)
		switch {
		case victim < nsegs && rnd.IntN(2) == 0:
			c.qes[victim]()
			time.Sleep(time.Duration(rnd.IntN(200)) * time.Millisecond)
			c.startQE(victim)
		case victim < nsegs:
			if err := shared.segs[victim].Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if err := shared.segs[victim].Start(); err != nil {
				t.Fatal(err)
			}
		default:
			if err := shared.coord.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if err := shared.coord.Start(); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	writers.Wait()
	for end := time.Now().Add(10 * time.Second); prepared(t) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("transactions stay prepared")
		}
	}
	cancel()
	bg.Wait()

	g := c.gang()
	seen := make(map[string]int)
	for _, r := range exec(t, g, nil, "SELECT a FROM chaos") {
		for _, row := range r.Rows {
			seen[string(row[0])]++
		}
	}
	for id, n := range seen {
		if n != nsegs {
			t.Errorf("transaction %s is on %d of %d segments", id, n, nsegs)
		}
	}
	for id := range acked {
		if seen[id] == 0 {
			t.Errorf("transaction %s was reported as committed and is lost", id)
		}
	}
	t.Logf("%d kills, %d transactions tried, %d acknowledged, %d there", kills, tries, len(acked), len(seen))
	if len(acked) == 0 || kills < 4 {
		t.Error("nothing was tested")
	}
}

// commitEverywhere inserts a row on all segments in one transaction.
func commitEverywhere(ctx context.Context, g *Gang, id string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := shared.coord.Connect(ctx, "postgres")
	if err != nil {
		time.Sleep(20 * time.Millisecond)
		return err
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := query(ctx, conn, "BEGIN"); err != nil {
		return err
	}
	if err := g.Begin(ctx, ""); err != nil {
		return err
	}
	if _, err := g.Exec(ctx, nil, "INSERT INTO chaos VALUES ("+id+")"); err != nil {
		_ = g.Rollback(ctx)
		return err
	}
	g.MarkWrite(nil)
	return g.CommitDistributed(ctx, &coordTxn{conn: conn})
}
