package main

import (
	goparser "go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module   = "github.com/lsst-dm/s3daemon"
	standard = "std" // stands for the whole standard library
)

// mayImport has the packages that import nothing but what is listed, which
// stands for what is beneath it too.
var mayImport = []struct {
	who  string // a folder, with those beneath it
	what []string
}{
	{"push", []string{standard}},
	{"secret", []string{standard}},
	{"throttle", []string{standard}},
	{"page", []string{standard}},
	{"status", []string{standard, module + "/push"}},
	{"source", []string{standard, module + "/push", "golang.org/x/sys"}},
	{"transport", []string{standard, "golang.org/x/sys", "golang.org/x/time/rate"}},
	{"journal", []string{standard, module + "/push", "go.etcd.io/bbolt", "google.golang.org/protobuf/encoding/protowire", "github.com/prometheus/client_golang"}},
	{"listen", []string{standard, "golang.org/x/sys", "github.com/prometheus/client_golang"}},
	{"internal/link", []string{standard, "golang.org/x/sys"}},
	{"send", []string{standard, module + "/push", module + "/secret", module + "/send", "github.com/vbauerster/mpb/v8", "golang.org/x/sys"}},
}

// mayNotImport has what packages must not know of.
var mayNotImport = []struct {
	who  string
	what []string
}{
	{"api", []string{module + "/uploader", module + "/source", module + "/journal", module + "/internal", "github.com/aws"}},
	{"uploader", []string{module + "/api"}},
}

// onlyImportedBy has what only these files or folders import.
var onlyImportedBy = []struct {
	what string
	who  []string
}{
	{"github.com/aws", []string{"uploader", "bench/wan"}},
	{module + "/internal/store", []string{"demo.go", "trouble.go"}}, // and tests
	{module + "/source", []string{"uploader"}},                      // so that one package opens what callers name
	{module + "/journal", []string{"uploader", "serve.go", "internal/history"}},
	{module + "/transport", []string{"uploader", "bandwidth.go", "serve.go"}},
	{"go.etcd.io/bbolt", []string{"journal"}},
	{"github.com/kelseyhightower/envconfig", []string{"config.go"}},
}

// TestImports checks the rules on every file that is no test, whatever system
// it is built for.
func TestImports(t *testing.T) {
	imports := readImports(t)
	for _, rule := range mayImport {
		each(t, imports, rule.who, func(file, imported string) {
			if !within(imported, rule.what...) {
				t.Errorf("%s imports %s: %s imports nothing but %s", file, imported, rule.who, strings.Join(rule.what, ", "))
			}
		})
	}
	for _, rule := range mayNotImport {
		each(t, imports, rule.who, func(file, imported string) {
			if within(imported, rule.what...) {
				t.Errorf("%s imports %s, of which %s must not know", file, imported, rule.who)
			}
		})
	}
	for _, rule := range onlyImportedBy {
		used := false
		each(t, imports, ".", func(file, imported string) {
			if !within(imported, rule.what) {
				return
			}
			used = true
			if !within(file, rule.who...) {
				t.Errorf("%s imports %s, which only %s does", file, imported, strings.Join(rule.who, ", "))
			}
		})
		if !used {
			t.Errorf("nothing imports %s: is the rule about it out of date?", rule.what)
		}
	}
	each(t, imports, ".", func(file, imported string) {
		if imported == module {
			t.Errorf("%s imports package main", file)
		}
		if imported == "C" {
			t.Errorf("%s imports C: the binaries are static", file)
		}
	})
}

// each calls do for every import of the files that are who or lie beneath it.
func each(t *testing.T, imports map[string][]string, who string, do func(file, imported string)) {
	t.Helper()
	found := false
	for file, list := range imports {
		if who != "." && !within(file, who) {
			continue
		}
		found = true
		for _, imported := range list {
			do(file, imported)
		}
	}
	if !found {
		t.Errorf("there is no %s: is the rule about it out of date?", who)
	}
}

// within reports whether the path is one of these roots or lies beneath one.
func within(p string, roots ...string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		if root == standard {
			first, _, _ := strings.Cut(p, "/")
			return !strings.Contains(first, ".") // so has the go command it
		}
		return p == root || strings.HasPrefix(p, root+"/")
	})
}

// readImports returns what the module's files import, without its tests and
// without the modules inside it.
func readImports(t *testing.T) map[string][]string {
	t.Helper()
	imports := make(map[string][]string)
	err := filepath.WalkDir(".", func(p string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() && p != "." {
			_, err := os.Stat(filepath.Join(p, "go.mod"))
			if err == nil || name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
				return fs.SkipDir
			}
		}
		if entry.IsDir() || path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := goparser.ParseFile(token.NewFileSet(), p, nil, goparser.ImportsOnly)
		if err != nil {
			return err
		}
		slash := filepath.ToSlash(p)
		imports[slash] = []string{}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			imports[slash] = append(imports[slash], imported)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return imports
}
