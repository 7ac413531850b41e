//go:build linux

package source

import (
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkOpen shows what the rules cost each file, four directories deep.
func BenchmarkOpen(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "2026", "11", "26", "night")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(dir, "a.fits")
	if err := os.WriteFile(path, make([]byte, 1024), 0o644); err != nil {
		b.Fatal(err)
	}
	home := b.TempDir()
	guarded := []string{home, home + "/.aws", home + "/.aws/credentials", "/var/run/secrets", "/run/secrets", "/etc/a", "/etc/b", "/etc/c"}
	roots := []string{filepath.Dir(filepath.Dir(dir))}
	for _, bb := range []struct {
		name   string
		opener *Opener
	}{
		{"anywhere", New(Rules{})},
		{"guarded", New(Rules{Guarded: guarded})},
		{"roots", New(Rules{Roots: roots, Guarded: guarded})},
	} {
		b.Run(bb.name, func(b *testing.B) {
			for b.Loop() {
				f, err := bb.opener.Open(b.Context(), path)
				if err != nil {
					b.Fatal(err)
				}
				f.Close()
			}
		})
	}
}
