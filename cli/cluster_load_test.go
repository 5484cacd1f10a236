package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-db/trunkline/internal/tpch"
)

func someLoad() *tpch.Report {
	r := &tpch.Report{Elapsed: 12300 * time.Millisecond}
	for i, t := range tpch.Tables {
		n := int64(1000 * i)
		r.Tables = append(r.Tables, tpch.TableReport{
			Table: t, Rows: n, Total: n, Load: time.Duration(i) * time.Second, Key: time.Second, Analyze: 100 * time.Millisecond,
		})
	}
	return r
}

func TestWriteLoad(t *testing.T) {
	var b bytes.Buffer
	if err := writeLoad(&b, someLoad()); err != nil {
		t.Fatal(err)
	}
	want := `
     TABLE  ROWS  LOAD S  ROWS/S  KEY S  ANALYZE S
    region     0     0.0       0    1.0        0.1
    nation  1000     1.0    1000    1.0        0.1
  supplier  2000     2.0    1000    1.0        0.1
  customer  3000     3.0    1000    1.0        0.1
      part  4000     4.0    1000    1.0        0.1
  partsupp  5000     5.0    1000    1.0        0.1
    orders  6000     6.0    1000    1.0        0.1
  lineitem  7000     7.0    1000    1.0        0.1
28,000 rows in 12.3 s. Tables are loaded at the same time, so their seconds overlap.
`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestLoadLeft(t *testing.T) {
	r := someLoad()
	for i := range r.Tables {
		r.Tables[i].Total, r.Tables[i].Key = 5000, 0
		r.Tables[i].Rows = min(r.Tables[i].Rows, 5000)
	}
	want := `database bench has the tables; complete: partsupp, orders, lineitem; in part: nation (1,000 of 5,000 rows), ` +
		`supplier (2,000 of 5,000 rows), customer (3,000 of 5,000 rows), part (4,000 of 5,000 rows); empty: region; ` +
		"0 of 8 have their primary key\nto begin anew, give --replace"
	if diff := cmp.Diff(want, loadLeft(r, "bench")); diff != "" {
		t.Error(diff)
	}
	for i := range r.Tables {
		r.Tables[i].Rows, r.Tables[i].Total = 0, 0
	}
	if got := loadLeft(r, "bench"); got != "nothing was loaded into database bench" {
		t.Error(got)
	}
}

func TestLoadProgress(t *testing.T) {
	var b bytes.Buffer
	tell := loadProgress(progressLine(&b, true))
	tell(tpch.Progress{Step: "making the tables"})
	tell(tpch.Progress{Step: "making the tables"})
	tell(tpch.Progress{Step: "loading orders", Loading: true, Total: 2000})
	tell(tpch.Progress{Step: "loading lineitem", Loading: true, Rows: 1500, Total: 2000})
	tell(tpch.Progress{Step: "loading lineitem", Loading: true, Rows: 1600, Total: 2000})
	got := b.String()
	if strings.Count(got, "\n") != 3 || !strings.Contains(got, "making the tables\n") || !strings.Contains(got, "lineitem: 1,500 of 2,000 rows (75 %), ") {
		t.Errorf("%s", got)
	}
}
