package journal

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOpenOfALockedJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := example(1)
	first := open(t, Config{Dir: dir})
	acceptAll(t, first, r)
	var log recorder
	_, err := Open(t.Context(), Config{Dir: dir, Log: slogTo(&log), Wait: time.Millisecond})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "within 1ms (S3DAEMON_JOURNAL_WAIT)") || !strings.Contains(err.Error(), "S3DAEMON_DATA_DIR") || !strings.Contains(err.Error(), dir) {
		t.Errorf("the second Open: %v", err)
	}
	if log.String() != "" {
		t.Errorf("it logged %s", log.String())
	}
	acceptAll(t, first, example(2)) // which is none the worse for it
	wantPush(t, reopen(t, first), r)
}

// TestOpenWaitsForTheLock: a daemon that drains for long does not keep the next one
// from starting, which says once what it waits for.
func TestOpenWaitsForTheLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := open(t, Config{Dir: dir})
	told := make(chan string, 100)
	log := slog.New(slog.NewTextHandler(writerFunc(func(line []byte) (int, error) {
		told <- string(line)
		return len(line), nil
	}), nil))
	go func() {
		if line := <-told; !strings.Contains(line, "waiting for another s3daemon") || !strings.Contains(line, filepath.Join(dir, fileName)) || !strings.Contains(line, "until=") {
			t.Errorf("the log has %q", line)
		}
		first.Close()
	}()
	open(t, Config{Dir: dir, Log: log, Wait: time.Hour})
	if len(told) != 0 {
		t.Errorf("the log has %q, too", <-told)
	}
}

// TestEndOfTheWait: who is told to end while he waits does so at once, and says why.
func TestEndOfTheWait(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open(t, Config{Dir: dir})
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	log := slog.New(slog.NewTextHandler(writerFunc(func(line []byte) (int, error) {
		cancel(why)
		return len(line), nil
	}), nil))
	if _, err := Open(ctx, Config{Dir: dir, Log: log, Wait: time.Hour}); !errors.Is(err, why) {
		t.Error(err)
	}
}

// writerFunc is a log that somebody reads.
type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(line []byte) (int, error) { return w(line) }

// TestManyStartAtOnce: of several processes exactly one gets the journal, be
// it there, missing or damaged.
func TestManyStartAtOnce(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]func(path string) error{
		"missing": func(string) error { return nil },
		"damaged": func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) },
		"whole": func(path string) error {
			j, err := Open(t.Context(), Config{Dir: filepath.Dir(path)})
			if err != nil {
				return err
			}
			return j.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := before(filepath.Join(dir, fileName)); err != nil {
				t.Fatal(err)
			}
			type result struct {
				j   *Journal
				err error
			}
			results := make(chan result)
			for range 5 {
				go func() {
					j, err := Open(t.Context(), Config{Dir: dir})
					results <- result{j, err}
				}()
			}
			var won *Journal
			for range 5 {
				switch r := <-results; {
				case r.err == nil && won == nil:
					won = r.j
				case r.err == nil:
					t.Error("two have it")
					r.j.Close()
				case !errors.Is(r.err, ErrLocked):
					t.Error(r.err)
				}
			}
			if won == nil {
				t.Fatal("none has it")
			}
			r := example(1)
			acceptAll(t, won, r)
			wantQueued(t, reopen(t, won), r)
			moved, _ := filepath.Glob(filepath.Join(dir, "*unreadable*"))
			if want := name == "damaged"; (len(moved) == 1) != want || len(moved) > 1 {
				t.Errorf("moved aside: %v", moved)
			}
		})
	}
}
