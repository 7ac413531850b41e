package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/lsst-dm/s3daemon/api"
	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/listen"
	"github.com/lsst-dm/s3daemon/page"
	"github.com/lsst-dm/s3daemon/secret"
	"github.com/lsst-dm/s3daemon/status"
	"github.com/lsst-dm/s3daemon/transport"
	"github.com/lsst-dm/s3daemon/uploader"
)

//go:embed openapi.yaml
var openAPI []byte

// lastAnswersTimeout is for writing the answers of the last pushes.
const lastAnswersTimeout = 2 * time.Second

// serve runs the daemon until the context ends, then drains it: it closes the
// listeners, refuses what still comes in over open connections, and waits for
// the pushes in flight; what has not ended stays in the journal. Those who ask
// at S3DAEMON_OPS_LISTEN are answered until the end. It calls ready with the
// addresses of the API once it accepts connections. The limit may be changed
// meanwhile. It returns an error if it could not start, or could not deliver
// what it was told to before the end.
func serve(ctx context.Context, cfg config, limit *transport.Bandwidth, log *slog.Logger, ready func([]string)) (err error) {
	registry := newRegistry()
	kept, err := journal.Open(ctx, journal.Config{
		Dir: cfg.dataDir, Wait: cfg.journalWait, HistoryAge: cfg.historyAge, HistoryCount: cfg.historyCount, Log: log, Metrics: registry,
	})
	switch {
	case err != nil && ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		log.Info("stopped, while another s3daemon used the journal")
		return nil
	case err != nil:
		return fmt.Errorf("s3daemon cannot start: %w", denied(cfg.dataDir, err))
	}
	defer func() { err = errors.Join(err, kept.Close()) }()
	warnOfDataDir(cfg.dataDir, os.Getenv, log)
	warnOfRoots(cfg.roots, log)
	tokens, err := openTokens(cfg.tokenFile, log)
	if err != nil {
		return err
	}
	callers := fitCallers(cfg.maxCallers, cfg.maxConnections, openFilesLimit(), log)
	whole, err := openFront("S3DAEMON_LISTEN", cfg.listen, cfg.socket, listen.NewDoor(callers.api, ofListener("api", registry)))
	if err != nil { // before anything is delivered
		return err
	}
	defer whole.Close()
	ops, err := openFront("S3DAEMON_OPS_LISTEN", cfg.opsListen, cfg.socket, listen.NewDoor(callers.ops, ofListener("ops", registry)))
	if err != nil {
		return err
	}
	defer ops.Close()
	secret.Hide(proxyPasswords(os.Getenv)...)
	board := status.New(status.Config{Deadline: cfg.deadline, Version: version, Show: api.CompleteReceipt})
	up, err := uploader.New(ctx, uploader.Config{
		Endpoint: cfg.endpoint, Places: cfg.places, MaxConnections: cfg.maxConnections, Attempts: cfg.attempts, GiveUpAfter: cfg.giveUpAfter, Deadline: cfg.deadline,
		ConnectTimeout: cfg.connectTimeout, StallTimeout: cfg.stallTimeout, QueueLimit: cfg.queueLimit, Roots: cfg.roots, Guarded: guardedPaths(cfg, os.Getenv), SyncFiles: cfg.syncFiles, RetryChanged: cfg.retryChanged, DrainQueue: cfg.drainQueue,
		Checksum: uploader.Checksum(cfg.checksum), Congestion: cfg.congestion, Bandwidth: limit, Warmup: cfg.warmup, Keys: cfg.keys,
		Journal: kept, Log: log, Metrics: registry, Ended: board.Ended, Refused: board.Refused,
	})
	if err != nil {
		return usageError{fmt.Errorf("s3daemon cannot start with this configuration:\n%w", err)}
	}
	whole.Handler, ops.Handler = api.New(api.Config{
		Pusher: up, Queue: up, Events: board, Version: version, Hosts: cfg.hosts, Users: cfg.users, Tokens: tokens, OpenAPI: openAPI, Page: page.Handler(), Admit: whole.door.Admit, Callers: callers.api.Callers,
		Scrape: &scrape{from: registry}, Registry: registry, Log: log,
	})
	whole.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	ops.ErrorLog = whole.ErrorLog

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	endWatching := watch(board, up)
	whole.start(stop)
	ops.start(stop)
	for _, l := range whole.listeners {
		log.Info("listening", "address", listen.Address(l))
		warnOfAddress(cfg, l, log)
	}
	for _, l := range ops.listeners {
		log.Info("listening for health and metrics", "address", listen.Address(l))
	}
	log.Info("ready", "version", version, "store", up.Endpoint(), "max_connections", cfg.maxConnections, "data_dir", cfg.dataDir)
	ready(whole.addresses())

	<-ctx.Done()
	cause := context.Cause(ctx)
	if errors.Is(cause, context.Canceled) {
		cause = nil // told to stop
	}
	return errors.Join(cause, drain(cfg, log, up, endWatching, whole, ops))
}

// watch has the board look at the uploader, until the function that it returns is
// called, which tells all who watch that this was all.
func watch(board *status.Board, up *uploader.Uploader) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { board.Run(ctx, up) })
	return func() {
		cancel()
		running.Wait()
	}
}

// drain ends the daemon in an order that loses nothing: no new connections, no
// new pushes, the pushes in flight, their answers, the connections. Those who
// watch see the pushes in flight until they have ended, or are cut off.
func drain(cfg config, log *slog.Logger, up *uploader.Uploader, endWatching func(), whole, ops *front) error {
	log.Info("stopping", "drain_timeout_seconds", cfg.drainTimeout.Seconds())
	up.Close()
	whole.stopListening()

	ctx, cancel := context.WithTimeout(context.Background(), cfg.drainTimeout)
	defer cancel()
	var err error
	if stay := up.Drain(ctx); stay > 0 {
		log.Warn("pushes were not delivered: they are in the journal, and go on once a daemon is started on it again", "pushes", stay, "data_dir", cfg.dataDir)
		if cfg.drainQueue {
			err = fmt.Errorf("of the queue %d could not be delivered within %v (S3DAEMON_DRAIN_TIMEOUT): they stay in the journal in %s", stay, cfg.drainTimeout, cfg.dataDir)
			log.Error(err.Error())
		}
	}
	endWatching()
	whole.end(lastAnswersTimeout)
	ops.stopListening()
	ops.end(lastAnswersTimeout)
	log.Info("stopped")
	return err
}

// newRegistry makes the registry of all metrics, with the runtime's own.
func newRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "s3daemon_build_info", Help: "1, with the version and the Go version it was built with."}, []string{"version", "goversion"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	registry.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}
