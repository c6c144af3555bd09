// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestProofsExist checks that every test that docs/security.md names is there,
// in the package it names. A test without a package is of the one named last.
func TestProofsExist(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	there := testsOf(t, root)
	if !there["archtest.TestProofsExist"] {
		t.Fatal("the search for tests does not find this one")
	}
	named := regexp.MustCompile("`(?:([a-z0-9]+)\\.)?((?:Test|Fuzz|Benchmark)[A-Za-z0-9]+)`").FindAllStringSubmatch(string(text), -1)
	if len(named) < 40 {
		t.Fatalf("docs/security.md names %d tests only", len(named))
	}
	pkg := ""
	for _, m := range named {
		if m[1] != "" {
			pkg = m[1]
		}
		if !there[pkg+"."+m[2]] {
			t.Errorf("docs/security.md names %s.%s: there is no such test", pkg, m[2])
		}
	}
}

// testsOf returns all tests below internal and kajitest as PACKAGE.TestName.
func testsOf(t *testing.T, root string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, dir := range []string{"internal", "kajitest", "test"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
					found[strings.TrimSuffix(file.Name.Name, "_test")+"."+f.Name.Name] = true
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}
