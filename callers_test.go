package main

import (
	"bytes"
	"log/slog"
	"math"
	"strings"
	"testing"
)

func TestFitCallers(t *testing.T) {
	for _, tt := range []struct {
		wanted, pool, limit int
		callers, rush       int
	}{
		{2000, 25, math.MaxInt32, 2000, 4000},
		{2000, 25, 1 << 20, 2000, 4000},
		{2000, 25, 13700, 2000, 4000},
		{2000, 25, 13698, 2000, 3999},
		{2000, 25, 5700, 2000, 0},
		{2000, 25, 5699, 1999, 0},
		{2000, 25, 4096, 1364, 0},
		{2000, 25, 1024, 289, 0},
		{10, 25, 2000, 10, 140},
		{10, 25, 1024, 10, 0},
		{2000, 25, 256, 20, 0},
		{2000, 1000, 1024, 1, 0},
	} {
		var log bytes.Buffer
		got := fitCallers(tt.wanted, tt.pool, tt.limit, slog.New(slog.NewTextHandler(&log, nil)))
		own := otherFiles + 4*tt.pool
		needs := own + 2*got.api.Callers + got.api.Spare + got.api.Rush + got.ops.Spare + got.ops.Rush
		if got.api.Callers != tt.callers || got.api.Rush != tt.rush || got.ops.Rush != tt.rush || got.api.Spare < 1 || got.ops.Spare < 1 {
			t.Errorf("%d callers, a pool of %d and %d files: %+v, want %d callers and %d in a rush", tt.wanted, tt.pool, tt.limit, got, tt.callers, tt.rush)
		}
		if needs > tt.limit && tt.limit > own+4 {
			t.Errorf("%+v may need %d files of %d", got, needs, tt.limit)
		}
		all := own + 2*tt.wanted + spareConnections + opsConnections
		if warned := strings.Contains(log.String(), "LimitNOFILE"); warned != (all > tt.limit) {
			t.Errorf("for %d files of %d the log says %s", all, tt.limit, log.String())
		}
	}
}
