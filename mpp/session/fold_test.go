package session

import (
	"math"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-db/trunkline/mpp/plan"
)

// TestFold folds rows of segments: a count, a sum, a minimum and a maximum.
func TestFold(t *testing.T) {
	null := []byte(nil)
	num := func(n int64) []byte { return strconv.AppendInt(nil, n, 10) }
	row := func(v ...[]byte) []byte { return appendRowBody(nil, v) }
	all := []plan.Fold{
		{Op: plan.FoldCount, Column: 0, Size: 8}, {Op: plan.FoldSum, Column: 1, Size: 8},
		{Op: plan.FoldMin, Column: 2, Size: 4}, {Op: plan.FoldMax, Column: 3, Size: 2},
	}
	for _, tc := range []struct {
		name    string
		rows    [][]byte
		formats []int16
		want    [][]byte
		err     string
	}{
		{name: "nothing", want: [][]byte{num(0), null, null, null}},
		{name: "empty segments", rows: [][]byte{row(num(0), null, null, null), row(num(0), null, null, null)},
			want: [][]byte{num(0), null, null, null}},
		{name: "rows", rows: [][]byte{row(num(2), num(-5), num(7), num(7)), row(num(0), null, null, null), row(num(3), num(4), num(-8), num(-9))},
			want: [][]byte{num(5), num(-1), num(-8), num(7)}},
		{name: "binary", rows: [][]byte{row(num(258), num(-2), num(7), num(-1))}, formats: []int16{1},
			want: [][]byte{{0, 0, 0, 0, 0, 0, 1, 2}, {255, 255, 255, 255, 255, 255, 255, 254}, {0, 0, 0, 7}, {255, 255}}},
		{name: "mixed formats", rows: [][]byte{row(num(1), num(2), num(3), num(4))}, formats: []int16{0, 0, 1, 0},
			want: [][]byte{num(1), num(2), {0, 0, 0, 3}, num(4)}},
		{name: "too much", rows: [][]byte{row(num(1), num(math.MaxInt64), null, null), row(num(1), num(1), null, null)}, err: "22003"},
		{name: "too little", rows: [][]byte{row(num(1), num(math.MinInt64), null, null), row(num(1), num(-1), null, null)}, err: "22003"},
		{name: "the most", rows: [][]byte{row(num(1), num(math.MaxInt64-1), num(math.MinInt64), null), row(num(1), num(1), num(math.MaxInt64), null)},
			want: [][]byte{num(2), num(math.MaxInt64), num(math.MinInt64), null}},
		{name: "not a number", rows: [][]byte{row([]byte("x"), null, null, null)}, err: "XX000"},
		{name: "a column less", rows: [][]byte{row(num(1), null, null)}, err: "XX000"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFolding(all)
			var err error
			for _, r := range tc.rows {
				if err = f.add(r); err != nil {
					break
				}
			}
			if code := codeOf(err); code != tc.err {
				t.Fatalf("error %v, want %q", err, tc.err)
			}
			if err != nil {
				return
			}
			if d := cmp.Diff(tc.want, f.row(tc.formats).Values); d != "" {
				t.Error(d)
			}
		})
	}
}

func codeOf(err error) string {
	if err == nil {
		return ""
	}
	return pgError(err).Code
}
