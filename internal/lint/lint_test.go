package lint

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestHouse holds the rules over the module as it is.
func TestHouse(t *testing.T) {
	pkgs := list(t)
	if len(pkgs) < 10 {
		t.Fatalf("go list found %d packages of the module, expected the whole house", len(pkgs))
	}
	for _, b := range Check(pkgs) {
		t.Error(b)
	}
}

// TestCheck shows that each rule can fail.
func TestCheck(t *testing.T) {
	p := func(path string, imports ...string) Package {
		return Package{Path: path, Doc: "doc", GoFiles: 1, Imports: imports}
	}
	for _, tc := range []struct {
		name string
		pkg  Package
		want string
	}{
		{"fine", p("mpp/session", "mpp/plan", "motion/tcp", "guc"), ""},
		{"main", p("cmd/trunkline", "cli"), ""},
		{"test helper", Package{Path: "mpp/plan", Doc: "doc", GoFiles: 1, Tests: []string{"internal/testkit"}}, ""},
		{"base imports base", p("icwire", "topology"), "icwire imports topology: imports go down only"},
		{"own subpackage", p("proxy", "proxy/trunk"), ""},
		{"upwards", p("proxy/trunk", "mpp/plan"), "proxy/trunk imports mpp/plan: imports go down only"},
		{"motion to mpp", p("motion/tcp", "mpp"), "motion/tcp imports mpp: imports go down only"},
		{"mpp to cluster", p("mpp/session", "cluster"), "mpp/session imports cluster: imports go down only"},
		{"cli from cluster", p("cluster", "cli"), "cluster imports cli: imports go down only"},
		{"upwards in a test", Package{Path: "guc", Doc: "doc", GoFiles: 1, Tests: []string{"cluster"}},
			"the tests of guc import cluster: imports go down only"},
		{"bench", p("internal/proxybench", "icwire", "proxy"), ""},
		{"bench beyond the public proxy", p("internal/proxybench", "proxy/trunk"),
			"internal/proxybench imports proxy/trunk: it may import icwire, topology, datadir, proxy, internal/testkit/wan, internal/benchreport, internal/freeport only"},
		{"bench in a server", p("instance", "internal/proxybench"), "instance imports internal/proxybench: imports go down only"},
		{"helper in product", p("cli", "internal/testkit"), "cli imports internal/testkit, which is for tests only"},
		{"emulated network in a bench", p("cli", "internal/testkit/wan"), ""},
		{"emulated network below", p("proxy", "internal/testkit/wan"), "proxy imports internal/testkit/wan: imports go down only"},
		{"emulated network in a test", Package{Path: "motion", Doc: "doc", GoFiles: 1, Tests: []string{"internal/testkit/wan"}}, ""},
		{"emulated network on test helpers", p("internal/testkit/wan", "internal/testkit"),
			"internal/testkit/wan imports internal/testkit, which is for tests only"},
		{"emulated network on the house", p("internal/testkit/wan", "proxy"),
			"internal/testkit/wan imports proxy: it may import the standard library and other modules only"},
		{"stranger", p("helpers"), "helpers has no place in the layers of internal/lint: give it one"},
		{"name that only starts alike", p("proxyx"), "proxyx has no place in the layers of internal/lint: give it one"},
		{"no comment", Package{Path: "guc", GoFiles: 1}, "guc has no package comment"},
	} {
		got := strings.Join(Check([]Package{tc.pkg}), "; ")
		if got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

func list(t *testing.T) []Package {
	t.Helper()
	mod, err := exec.Command("go", "list", "-m").Output()
	if err != nil {
		t.Fatalf("go list -m: %v", err)
	}
	module := strings.TrimSpace(string(mod))
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Name,Doc,Imports,TestImports,XTestImports,GoFiles,CgoFiles", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	own := func(paths ...[]string) []string {
		var cut []string
		for _, path := range slices.Concat(paths...) {
			if rest, ok := strings.CutPrefix(path, module+"/"); ok {
				cut = append(cut, rest)
			}
		}
		return cut
	}
	var pkgs []Package
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p struct {
			ImportPath, Name, Doc                                 string
			Imports, TestImports, XTestImports, GoFiles, CgoFiles []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("go list printed what is not JSON: %v", err)
		}
		path := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		pkgs = append(pkgs, Package{
			Path: path, Name: p.Name, Doc: p.Doc, GoFiles: len(p.GoFiles) + len(p.CgoFiles),
			Imports: own(p.Imports), Tests: own(p.TestImports, p.XTestImports),
		})
	}
}
