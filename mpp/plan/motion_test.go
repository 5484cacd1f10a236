package plan

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/trunkline-db/trunkline/internal/randomsql"
	"github.com/trunkline-db/trunkline/mpp/cdbhash"
)

// Motions as the tests' cluster has them: a slice's rows are all there before
// the one that reads them runs.

// null is how NULL shows in the rows of the tests.
const null = randomsql.Null

// hashRow is the segment of a hash key, whose values are text; ok is false when
// a type has no hash.
func hashRow(oids []uint32, values []string, n int) (segment int, ok bool) {
	h, err := cdbhash.NewHasher(oids)
	if err != nil {
		return 0, false
	}
	bin := make([][]byte, len(values))
	for i, v := range values {
		if v == null {
			continue
		}
		if bin[i], ok = cdbhash.FromText(oids[i], []byte(v), nil); !ok {
			return 0, false
		}
	}
	segment, err = h.Segment(bin, n)
	return segment, err == nil
}

// sends is Options.Sends for the settings of the tests' connections.
var sends = cdbhash.Settings{DateStyle: "ISO, MDY", TimeZone: "UTC", ExtraFloatDigits: 1}.Reads

// hash is Options.Hash for the rows that load placed.
func (w *world) hash(types []Column, values []string, n int) (int, bool) {
	oids := make([]uint32, len(types))
	for i, t := range types {
		oids[i] = t.TypeOID
	}
	return hashRow(oids, values, n)
}

func segmentDB(i int) string { return "seg" + strconv.Itoa(i) }

func orAll(segments []int) []int {
	if segments == nil {
		return firstSegments(testSegments)
	}
	return segments
}

// inputs runs the slices that segments read, and gives them the rows.
func (w *world) inputs(q *Query, params [][2]string) error {
	for i := len(q.Slices) - 1; i >= 0; i-- {
		s := &q.Slices[i]
		if s.Motion == GatherMotion {
			if s.To != -1 {
				return fmt.Errorf("slice %q gathers to slice %d", s.Token, s.To)
			}
			continue
		}
		if s.To < 0 || s.To >= i || strings.Count(q.Slices[s.To].SQL, "'gp_motion', '"+s.Token+"'") != 1 {
			return fmt.Errorf("slice %q goes to slice %d, which does not read it once", s.Token, s.To)
		}
		to := orAll(q.Slices[s.To].Segments)
		if s.Motion == StayMotion {
			if err := w.stay(s, to, params); err != nil {
				return err
			}
			continue
		}
		rows, err := w.gather(s, params)
		if err != nil {
			return err
		}
		share := map[int][][]string{}
		for _, row := range rows {
			if s.Motion == BroadcastMotion {
				for _, k := range to {
					share[k] = append(share[k], row)
				}
				continue
			}
			var oids []uint32
			var values []string
			for _, k := range s.Keys {
				oids = append(oids, s.Columns[k].TypeOID)
				values = append(values, row[k])
			}
			k, ok := hashRow(oids, values, len(to))
			if !ok || len(s.Keys) == 0 {
				return fmt.Errorf("slice %q: no hash of %q", s.Token, values)
			}
			share[k] = append(share[k], row)
		}
		for at, k := range to {
			if s.Motion == RedistributeMotion && at != k {
				return fmt.Errorf("slice %q is redistributed over segments %v", s.Token, to)
			}
			if err := w.deliver(segmentDB(k), s, share[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

// stay gives each of the segments to the rows that a slice has there.
func (w *world) stay(s *Slice, to []int, params [][2]string) error {
	if !slices.Equal(orAll(s.Segments), to) {
		return fmt.Errorf("slice %q stays on segments %v, and %v read it", s.Token, s.Segments, to)
	}
	for _, k := range to {
		there := *s
		there.Segments = []int{k}
		rows, err := w.gather(&there, params)
		if err != nil {
			return err
		}
		if err := w.deliver(segmentDB(k), s, rows); err != nil {
			return err
		}
	}
	return nil
}

// deliver puts the rows of a slice where gp_motion_recv finds them.
func (w *world) deliver(db string, s *Slice, rows [][]string) error {
	var spec []string
	for i, c := range s.Columns {
		spec = append(spec, fmt.Sprintf("fields[%d]::%s", i+1, c.Type))
	}
	reads := 0
	if s.Again {
		reads = -100
	}
	w.exec(db, fmt.Sprintf("INSERT INTO motion_reads VALUES (%s, %d, %s)", literal(s.Token), reads, literal(strings.Join(spec, ", "))))
	if len(rows) == 0 {
		return nil
	}
	var buf strings.Builder
	for _, row := range rows {
		var list []string
		for _, v := range row {
			if v == null {
				list = append(list, "NULL")
			} else {
				list = append(list, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v)+`"`)
			}
		}
		buf.WriteString(copyText([][]string{{s.Token, "{" + strings.Join(list, ",") + "}"}}))
	}
	_, err := w.conns[db].PgConn().CopyFrom(context.Background(), strings.NewReader(buf.String()), "COPY motion_data FROM STDIN")
	return err
}

// forgetMotions drops all that was delivered.
func (w *world) forgetMotions(q *Query) {
	used := map[string]bool{"coord": q.Kind == Top}
	for _, s := range q.Slices {
		if s.To >= 0 && s.To < len(q.Slices) {
			for _, k := range orAll(q.Slices[s.To].Segments) {
				used[segmentDB(k)] = true
			}
		}
	}
	for db, is := range used {
		if is {
			w.exec(db, "DELETE FROM motion_reads; DELETE FROM motion_data")
		}
	}
}

// makeMotions makes the functions that read motions.
func (w *world) makeMotions(db string) {
	for _, f := range []string{"gp_motion_recv", "gp_motion_recv_2", "gp_motion_recv_3", "gp_motion_recv_4", "gp_motion_recv_5", "gp_motion_recv_6", "gp_motion_recv_7"} {
		w.exec(db, `CREATE OR REPLACE FUNCTION pg_catalog.`+f+`(text, token text) RETURNS SETOF record VOLATILE PARALLEL RESTRICTED LANGUAGE plpgsql AS
			$$ DECLARE list text; BEGIN
				UPDATE motion_reads SET n = n + 1 WHERE motion_reads.token = $2 AND n <= 0 RETURNING spec INTO list;
				IF NOT FOUND THEN RAISE EXCEPTION 'source % is read twice', $2; END IF;
				RETURN QUERY EXECUTE 'SELECT ' || list || ' FROM pg_temp.motion_data WHERE token = $1' USING $2;
			END $$`)
	}
	w.exec(db, "CREATE TEMP TABLE IF NOT EXISTS motion_reads (token text, n int, spec text); CREATE TEMP TABLE IF NOT EXISTS motion_data (token text, fields text[])")
}
