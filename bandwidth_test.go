package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestBitsPerSecond(t *testing.T) {
	for _, tt := range []struct {
		text string
		want int64 // -1 where it is a mistake
	}{
		{"0", 0}, {"0M", 0}, {"64k", 64_000}, {"64000", 64_000}, {"200M", 200_000_000}, {"2.5G", 2_500_000_000}, {"1e9", 1_000_000_000},
		{"1000G", 1_000_000_000_000}, {"0.3M", 300_000},
		{"", -1}, {"k", -1}, {"63.9k", -1}, {"100", -1}, {"-1", -1}, {"-1G", -1}, {"1001G", -1}, {"1T", -1}, {"1KM", -1}, {"1kM", -1}, {"10 M", -1},
		{"NaN", -1}, {"Inf", -1}, {"InfG", -1}, {"1e400", -1}, {"100Mbit", -1}, {"1,5G", -1},
	} {
		got, ok := bitsPerSecond(tt.text)
		if ok != (tt.want >= 0) || ok && got != tt.want {
			t.Errorf("%q is %d, %v, want %d", tt.text, got, ok, tt.want)
		}
	}
}

// TestBandwidthIsReadAgain: what the file says counts from then on, and a mistake
// in it counts for nothing.
func TestBandwidthIsReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bandwidth")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var lines bytes.Buffer
	log := slog.New(slog.NewTextHandler(&lines, nil))
	write("100M\n")
	limit, err := newBandwidth(config{bandwidthFile: file})
	if err != nil || limit.Get() != 100_000_000 {
		t.Fatalf("the limit is %v, %v", limit, err)
	}
	for _, step := range []struct {
		text string
		want int64
	}{
		{"20M", 20_000_000}, {"hunter2", 20_000_000}, {"", 20_000_000}, {" 1G \n", 1_000_000_000}, {"1M 2M", 1_000_000_000},
		{strings.Repeat(" ", longestBandwidth) + "1M", 1_000_000_000}, {"0", 0}, {"5M\n", 5_000_000},
	} {
		write(step.text)
		lines.Reset()
		before := limit.Get()
		limit.reread(log)
		if got := limit.Get(); got != step.want {
			t.Errorf("%q: the limit is %d, want %d", step.text, got, step.want)
		}
		if mistake := before == step.want; strings.Contains(lines.String(), "level=ERROR") != mistake || strings.Contains(lines.String(), "hunter2") {
			t.Errorf("%q: the log says %s", step.text, lines.String())
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if limit.reread(log); limit.Get() != 5_000_000 {
		t.Errorf("without its file the limit is %d", limit.Get())
	}
}

func TestBandwidthWithoutFile(t *testing.T) {
	limit, err := newBandwidth(config{bandwidth: 8_000_000})
	if err != nil {
		t.Fatal(err)
	}
	if limit.reread(slog.New(slog.DiscardHandler)); limit.Get() != 8_000_000 {
		t.Errorf("the limit is %d", limit.Get())
	}
}

// TestBandwidthThatCannotBeRead is a mistake of the configuration, told with the
// others.
func TestBandwidthThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	fifo, wrong := filepath.Join(dir, "fifo"), filepath.Join(dir, "wrong")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(wrong, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	held, err := os.OpenFile(fifo, os.O_RDWR, 0) // so that what reads it waits
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for _, path := range []string{fifo, wrong, dir, filepath.Join(dir, "none")} {
		setEnvironment(t, "S3DAEMON_BANDWIDTH="+path, "S3DAEMON_ATTEMPTS=0")
		err := daemon(t.Context(), os.Stderr)
		if err == nil || exitStatus(err) != 2 || !strings.Contains(err.Error(), "S3DAEMON_BANDWIDTH: ") ||
			!strings.Contains(err.Error(), "S3DAEMON_ATTEMPTS: ") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
