//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/lsst-dm/s3daemon/internal/child"
	"github.com/lsst-dm/s3daemon/internal/link"
	"github.com/lsst-dm/s3daemon/push"
)

// warmTimeout bounds the wait for a daemon to be warm. Others before this one
// never say that they are.
const warmTimeout = 30 * time.Second

// A daemon is an s3daemon without privileges.
type daemon struct {
	server *child.Server
	dir    string // its journal
	url    string
	client *http.Client
}

// startDaemon starts the daemon at path on a side of the link.
func startDaemon(ctx context.Context, path string, b *bed, side *link.Side, warm bool) (*daemon, error) {
	dir, err := os.MkdirTemp(b.dir, "journal-")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path)
	cmd.SysProcAttr = nobody()
	if err := os.Chown(dir, int(cmd.SysProcAttr.Credential.Uid), int(cmd.SysProcAttr.Credential.Gid)); err != nil {
		return nil, err
	}
	cmd.Env = append(child.Env(), credentials()...)
	cmd.Env = append(cmd.Env, "S3_ENDPOINT_URL="+b.endpoint, "S3DAEMON_LISTEN=127.0.0.1:0", "S3DAEMON_DATA_DIR="+dir)
	if b.ca != "" {
		cmd.Env = append(cmd.Env, "AWS_CA_BUNDLE="+b.ca)
	}
	if warm {
		cmd.Env = append(cmd.Env, "S3DAEMON_WARMUP=s3://"+warmBucket+"/.warmup")
	}
	var address string
	server, err := child.Start(ctx, "the daemon", cmd, side.Start, child.Listening(&address))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	d := &daemon{server: server, dir: dir, url: "http://" + address, client: clientOn(side)}
	if warm {
		if err := d.awaitWarm(ctx); err != nil {
			return nil, errors.Join(err, d.stop())
		}
	}
	return d, nil
}

// awaitWarm returns when the daemon says that it is warm, or warmTimeout has
// passed.
func (d *daemon) awaitWarm(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, warmTimeout)
	defer cancel()
	_ = retry(waiting, func() error {
		facts, err := d.metrics(ctx)
		if err == nil && facts["s3daemon_pool_warm"] != 1 {
			err = errors.New("not warm yet")
		}
		return err
	})
	return ctx.Err()
}

// push asks for all pushes at once and waits for the last.
func (d *daemon) push(ctx context.Context, file string, size int64, n int) error {
	return atOnce(ctx, n, func(ctx context.Context, i int) error {
		receipt, err := d.pushOne(ctx, file, push.Destination{Bucket: bucket, Key: key(i)})
		if err == nil && (receipt.State != push.Done || receipt.Size != size) {
			err = fmt.Errorf("the receipt says %s, %d bytes", receipt.State, receipt.Size)
		}
		return err
	})
}

func (d *daemon) pushOne(ctx context.Context, file string, to push.Destination) (push.Receipt, error) {
	var receipt push.Receipt
	body, err := json.Marshal(push.Request{File: file, Destination: to.String()})
	if err != nil {
		return receipt, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url+"/push", bytes.NewReader(body))
	if err != nil {
		return receipt, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := d.client.Do(req)
	if err != nil {
		return receipt, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return receipt, err
	}
	if resp.StatusCode != http.StatusOK {
		return receipt, fmt.Errorf("the daemon answered %s: %s", resp.Status, push.OneLine(string(answer)))
	}
	return receipt, json.Unmarshal(answer, &receipt)
}

// metrics returns what /metrics has, by name and labels.
func (d *daemon) metrics(ctx context.Context) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return parseMetrics(string(text)), nil
}

func parseMetrics(text string) map[string]float64 {
	values := map[string]float64{}
	for line := range strings.Lines(text) {
		name, number, ok := cutLast(strings.TrimSpace(line), " ")
		if v, err := strconv.ParseFloat(number, 64); ok && err == nil && !strings.HasPrefix(line, "#") {
			values[name] = v
		}
	}
	return values
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func (d *daemon) stop() error {
	d.client.CloseIdleConnections()
	return errors.Join(d.server.Stop(), os.RemoveAll(d.dir))
}

// completeTime returns how long the store takes for CompleteMultipartUpload of
// a file, asked by a daemon beside it.
func completeTime(ctx context.Context, path string, b *bed, file string, size int64) (time.Duration, error) {
	const sum = `s3daemon_s3_request_duration_seconds_sum{operation="CompleteMultipartUpload"`
	d, err := startDaemon(ctx, path, b, b.link.Far, false)
	if err != nil {
		return 0, err
	}
	err = d.push(ctx, file, size, 1)
	facts, factsErr := d.metrics(ctx)
	err = errors.Join(err, factsErr, d.stop(), b.empty())
	var took float64
	for name, v := range facts {
		if strings.HasPrefix(name, sum) {
			took += v
		}
	}
	return time.Duration(took * float64(time.Second)), err
}
