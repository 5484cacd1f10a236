package session

import (
	"encoding/binary"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/trunkline-db/trunkline/mpp/plan"
)

// folding makes one row of the rows of segments, of which each has one.
type folding struct {
	folds  []plan.Fold
	values []int64
	given  []bool // not NULL
}

func newFolding(folds []plan.Fold) *folding {
	f := &folding{folds: folds, values: make([]int64, len(folds)), given: make([]bool, len(folds))}
	for i, o := range folds {
		f.given[i] = o.Op == plan.FoldCount
	}
	return f
}

// add takes one row, the body of a DataRow in text form.
func (f *folding) add(row []byte) error {
	var columns [][]byte
	for rest := row[2:]; len(rest) >= 4; {
		var v []byte
		v, rest = field(rest)
		columns = append(columns, v)
	}
	for i, o := range f.folds {
		if o.Column >= len(columns) {
			return internal("a segment has sent a row of %d columns", len(columns))
		}
		text := columns[o.Column]
		if text == nil {
			continue
		}
		v, err := strconv.ParseInt(string(text), 10, 64)
		if err != nil {
			return internal("a segment has sent %q for a number", text)
		}
		sum := f.values[i]
		switch {
		case o.Op == plan.FoldCount || o.Op == plan.FoldSum:
			if sum += v; (sum > f.values[i]) != (v > 0) && v != 0 {
				return sqlError("22003", "bigint out of range")
			}
		case f.given[i] && (o.Op == plan.FoldMin) == (sum < v):
			continue
		default:
			sum = v
		}
		f.values[i], f.given[i] = sum, true
	}
	return nil
}

// row is the result, its columns in the given formats.
func (f *folding) row(formats []int16) *pgproto3.DataRow {
	row := &pgproto3.DataRow{Values: make([][]byte, len(f.folds))}
	for i, o := range f.folds {
		if !f.given[i] {
			continue
		}
		v := f.values[i]
		if formatOf(formats, i) == pgproto3.TextFormat {
			row.Values[i] = strconv.AppendInt(nil, v, 10)
		} else {
			row.Values[i] = binary.BigEndian.AppendUint64(nil, uint64(v))[8-o.Size:]
		}
	}
	return row
}

// fold answers a query whose second stage needs no PostgreSQL.
func (s *Session) fold(req *request, q *plan.Query) (*pgproto3.DataRow, error) {
	if err := s.beforeSlices(req.ctx, q.Slices); err != nil {
		return nil, err
	}
	f := newFolding(q.Fold)
	begin := time.Now()
	err := s.gatherFirst(req.ctx, s.besides(q.Slices, req.params), nil, req.quick != nil && req.quick.short, f.add)
	if req.quick != nil {
		req.quick.short = time.Since(begin) < shortRun
	}
	if err != nil {
		return nil, err
	}
	return f.row(req.formats), nil
}
