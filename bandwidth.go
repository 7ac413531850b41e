package main

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/lsst-dm/s3daemon/secret"
	"github.com/lsst-dm/s3daemon/transport"
)

// bandwidth is the limit of what is sent to the store, and where it comes from. A
// file is what SIGHUP is for: nobody can give a process another environment.
type bandwidth struct {
	*transport.Bandwidth
	file string // that has it; empty: it does not change
}

// newBandwidth makes the limit that the configuration asks for.
func newBandwidth(cfg config) (*bandwidth, error) {
	bits := cfg.bandwidth
	if cfg.bandwidthFile != "" {
		var err error
		if bits, err = readBandwidth(cfg.bandwidthFile); err != nil {
			return nil, err
		}
	}
	return &bandwidth{transport.NewBandwidth(bits), cfg.bandwidthFile}, nil
}

// reread has the limit be what the file says by now. A mistake in it changes
// nothing, and is told.
func (b *bandwidth) reread(log *slog.Logger) {
	if b.file == "" {
		return
	}
	bits, err := readBandwidth(b.file)
	if err != nil {
		log.Error("the bandwidth stays as it is", "bits_per_second", b.Get(), "error", err.Error())
		return
	}
	b.Set(bits)
	log.Info("the bandwidth was read again", "bits_per_second", bits, "file", b.file)
}

// longestBandwidth is how long such a file may be, in bytes.
const longestBandwidth = 128

// readBandwidth reads a limit from a file, which may be another than was meant:
// what it has is not repeated.
func readBandwidth(path string) (int64, error) {
	_, text, err := secret.Read(path, longestBandwidth)
	if err != nil {
		return 0, fmt.Errorf("S3DAEMON_BANDWIDTH: %w", err)
	}
	bits, ok := bitsPerSecond(strings.TrimSpace(string(text)))
	if !ok {
		return 0, fmt.Errorf("S3DAEMON_BANDWIDTH: what the file %s holds is not %s", path, aBandwidth)
	}
	return bits, nil
}

// Bounds of a limit, in bits per second. What is below was meant in another unit,
// and would look like a store that stands still.
const (
	leastBandwidth = 64_000
	mostBandwidth  = 1_000_000_000_000
)

// aBandwidth is what bitsPerSecond reads.
const aBandwidth = "0, or bits per second from 64k to 1000G, such as 200M or 2.5G"

// bitsPerSecond reads a number of bits per second, or of thousands (k), millions
// (M) or billions (G) of them.
func bitsPerSecond(text string) (int64, bool) {
	unit := 1.0
	for suffix, n := range map[string]float64{"k": 1e3, "M": 1e6, "G": 1e9} {
		if number, found := strings.CutSuffix(text, suffix); found {
			text, unit = number, n
			break
		}
	}
	n, err := strconv.ParseFloat(text, 64)
	bits := n * unit
	return int64(bits), err == nil && (bits == 0 || leastBandwidth <= bits && bits <= mostBandwidth)
}
