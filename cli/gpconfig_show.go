package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/trunkline-db/trunkline/datadir"
	"github.com/trunkline-db/trunkline/guc"
	"github.com/trunkline-db/trunkline/topology"
)

// listAll prints every parameter but the hidden ones, PostgreSQL's and
// Greenplum's, one a line.
func (g *gpconfig) listAll(ctx context.Context) error {
	list, err := g.cat.Settings(ctx)
	if err != nil {
		return err
	}
	for _, p := range guc.All() {
		known := slices.ContainsFunc(list, func(s pgSetting) bool { return s.name == p.Name })
		if !known && !p.Hidden {
			list = append(list, pgSetting{name: p.Name, unit: p.Unit, context: p.Context.String(),
				vartype: p.Type.String(), minVal: p.MinText(), maxVal: p.MaxText()})
		}
	}
	slices.SortFunc(list, func(a, b pgSetting) int { return strings.Compare(a.name, b.name) })
	for _, s := range list {
		if (s.name == "port" || s.name == "listen_addresses") && !g.skipValidation {
			continue
		}
		g.say("[name: %s] [unit: %s] [context: %s] [vartype: %s] [min_val: %s] [max_val: %s]",
			s.name, orNone(s.unit), s.context, s.vartype, orNone(s.minVal), orNone(s.maxVal))
	}
	return nil
}

func orNone(s string) string {
	if s == "" {
		return "None"
	}
	return s
}

// place is what -s finds of one instance.
type place struct {
	content int16
	dbid    uint16
	live    string
	file    string // as written
	inFile  bool
}

func (g *gpconfig) showOne(ctx context.Context) error {
	var live []liveValue
	if !g.file {
		var err error
		if live, err = g.cat.Live(ctx, g.show); err != nil {
			return g.liveError(err)
		}
		if len(live) == 0 {
			return plainError("Failed to retrieve GUC information, guc does not exist: " + g.show)
		}
		slices.SortStableFunc(live, func(a, b liveValue) int { return int(a.content) - int(b.content) })
	}
	if !g.file && !g.fileCompare {
		g.printLive(live)
		return nil
	}
	places, err := g.readFiles()
	if err != nil {
		return err
	}
	if g.file {
		g.printFiles(places)
		return nil
	}
	for i := range places {
		k := slices.IndexFunc(live, func(l liveValue) bool { return l.content == places[i].content })
		if k < 0 {
			return fmt.Errorf("no live value of content %d", places[i].content)
		}
		places[i].live = live[k].value
	}
	return g.printCompared(ctx, places)
}

func (g *gpconfig) liveError(err error) error {
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && pg.Code == guc.CodeUnknown:
		return plainError("Failed to retrieve GUC information, guc does not exist: " + g.show)
	case errors.As(err, &pg):
		return plainError("Failed to retrieve GUC information: " + err.Error())
	default:
		return plainError("Failed to retrieve GUC information, the database is not accessible: " + err.Error())
	}
}

func (g *gpconfig) printLive(live []liveValue) {
	if g.show == "port" {
		g.say("GUC                 : %s", g.show)
		for _, l := range live {
			g.say("Context: %5d Value: %s", l.content, l.value)
		}
		return
	}
	segment, coordinator, same := "", "", true
	seen := false
	for _, l := range live {
		if l.content == topology.ContentCoordinator {
			coordinator = l.value
			continue
		}
		same = same && (!seen || l.value == segment)
		segment, seen = l.value, true
	}
	if same {
		g.printConsistent("value: "+coordinator, "value: "+segment)
		return
	}
	g.say("WARNING: GUCS ARE OUT OF SYNC: ")
	for _, l := range live {
		g.say("[context: %d] [name: %s] [value: %s]", l.content, g.show, l.value)
	}
}

func (g *gpconfig) printConsistent(coordinator, segment string) {
	g.say("Values on all segments are consistent")
	g.say("GUC              : %s", g.show)
	g.say("Coordinator %s", coordinator)
	g.say("Segment     %s", segment)
}

// readFiles finds the parameter in every instance's file.
func (g *gpconfig) readFiles() ([]place, error) {
	var list []place
	var failed error
	for _, i := range g.instances {
		c, err := guc.ReadConf(datadir.Dir(i.Datadir).Conf())
		if c == nil {
			g.error("failed obtaining guc %s from the postgresql.conf files on host: %s msg: %v", g.show, i.Hostname, err)
			failed = fmt.Errorf("finished with errors obtaining guc %s from at least one file", g.show)
			continue
		}
		if err != nil {
			g.warn("%v", err)
		}
		s, ok := c.Lookup(g.show)
		list = append(list, place{content: i.Content, dbid: i.Dbid, file: s.Raw, inFile: ok})
	}
	slices.SortStableFunc(list, func(a, b place) int { return int(a.content) - int(b.content) })
	return list, failed
}

// sameFiles says whether all files of the coordinators agree, and all of the
// segments.
func sameFiles(list []place) (coordinator, segment place, same bool) {
	same = true
	var seenC, seenS bool
	for _, p := range list {
		ref, seen := &segment, &seenS
		if p.content == topology.ContentCoordinator {
			ref, seen = &coordinator, &seenC
		}
		if *seen && (ref.file != p.file || ref.inFile != p.inFile || ref.live != p.live) {
			same = false
		}
		if !*seen {
			*ref, *seen = p, true
		}
	}
	return coordinator, segment, same
}

func (g *gpconfig) printFiles(list []place) {
	coordinator, segment, same := sameFiles(list)
	if !same {
		g.say("WARNING: GUCS ARE OUT OF SYNC: ")
		for _, p := range list {
			value := "[not set in file]"
			if p.inFile {
				value = "[value: " + p.file + "]"
			}
			g.say("[context: %d] [dbid: %d] [name: %s] %s", p.content, p.dbid, g.show, value)
		}
		return
	}
	line := func(p place, where string) string {
		if p.inFile {
			return fmt.Sprintf("%-12svalue: %s", where, p.file)
		}
		if where == "Segment" {
			where = "segments"
		}
		return "No value is set on " + strings.ToLower(where)
	}
	g.say("Values on all segments are consistent")
	g.say("GUC              : %s", g.show)
	g.say("%s", line(coordinator, "Coordinator"))
	g.say("%s", line(segment, "Segment"))
}

// printCompared prints live values beside those of the files. They agree when
// they mean the same, whatever the unit or spelling.
func (g *gpconfig) printCompared(ctx context.Context, list []place) error {
	p, ok := guc.Lookup(g.show)
	if !ok {
		s, err := g.cat.Setting(ctx, g.show)
		if err != nil {
			return err
		}
		if p = (&guc.Parameter{Name: g.show, Type: guc.String}); s != nil {
			p = s.parameter()
		}
	}
	coordinator, segment, same := sameFiles(list)
	for _, f := range list {
		same = same && (!f.inFile || means(p, unquoted(f.file)) == means(p, f.live))
	}
	text := func(f place) string {
		if f.inFile {
			return f.live + " | file: " + f.file
		}
		return f.live + " | not set in file"
	}
	if same {
		g.printConsistent("value: "+text(coordinator), "value: "+text(segment))
		return nil
	}
	g.say("WARNING: GUCS ARE OUT OF SYNC: ")
	for _, f := range list {
		g.say("[context: %d] [dbid: %d] [name: %s] [value: %s]", f.content, f.dbid, g.show, text(f))
	}
	return nil
}

// means is the canonical form of a value, or the value where it has none.
func means(p *guc.Parameter, value string) string {
	if v, err := p.Parse(value); err == nil {
		return v
	}
	return value
}
