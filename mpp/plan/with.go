package plan

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// WITH queries that each segment has: where one that aggregates is named several
// times, all segments get what each of them has aggregated, and finish that, so that
// its tables are read once, if that is more than is sent. Others are inlined, see
// restated.

// withQuery is a SELECT in WITH, of a statement's level.
type withQuery struct {
	lv   *level
	cte  *pg.CommonTableExpr
	uses int // how often FROM clauses name it
}

// shared says whether it is one that segments can have.
func (w *withQuery) shared() bool {
	return w.uses > 1 && !w.lv.outer && w.cte.Ctematerialized != pg.CTEMaterialize_CTEMaterializeNever &&
		w.cte.SearchClause == nil && w.cte.CycleClause == nil
}

// tables are those that it reads.
func (w *withQuery) tables() (out []*rte) {
	w.lv.each(func(l *level) bool {
		for _, r := range l.rtes {
			if r.kind == rteGather {
				out = append(out, r)
			}
		}
		return true
	})
	return out
}

// placeWith notes that segments have the WITH queries of a level, or says why they
// have not.
func (p *planner) placeWith(lv *level) (why string) {
	if lv.sel.WithClause == nil {
		return ""
	}
	if len(lv.with) != len(lv.sel.WithClause.Ctes) {
		return "WITH"
	}
	for _, w := range lv.with {
		if !w.shared() || len(w.lv.sel.GroupClause) == 0 {
			why = "WITH"
			break
		}
		if len(w.lv.rtes) != 1 || w.lv.rtes[0].first == nil {
			why = subGroups
			continue
		}
		from := w.lv.rtes[0]
		if bytes, _ := scanBytes(from, nil, nil); bytes*float64(p.opt.NumSegments-1) > from.first.reads {
			why = "WITH"
			break
		}
		l, no := p.levelLocus(w.lv)
		if no == "" && l.kind != locusReplicated {
			no = apart
		}
		if no != "" {
			why = "WITH query with " + no
			break
		}
		if p.with == nil {
			p.with = map[*withQuery]int{}
		}
		p.with[w] = l.segs
	}
	if why != "" {
		p.forgetWith(lv)
	}
	return why
}

// forgetWith takes back what placeWith has noted.
func (p *planner) forgetWith(lv *level) {
	for _, w := range lv.with {
		delete(p.with, w)
	}
}
