package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rclone/gofakes3"
	"github.com/rclone/gofakes3/s3mem"
	"golang.org/x/time/rate"
)

// store is an S3 server in memory. Its keys, and how fast it takes bytes, can be
// changed while it runs, by its second address:
//
//	GET /objects           [{"bucket","key","size","sha256","writes","written_at"}...]
//	GET /counts            {"requests","refused","under_way","taken":{KEY ID: requests}}
//	PUT /rate              the body is bytes a second, of all requests together; 0: no limit
//	PUT /credentials       the body is lines of ID:SECRET: nothing else is taken from now on
//	POST /sts              for AWS_ENDPOINT_URL_STS: gives the last of them to whoever has a token (see sts.go)
//
// Whoever reaches that address may do so: it is for tests.
type store struct {
	backend *s3mem.Backend
	s3      *gofakes3.GoFakeS3
	limit   *rate.Limiter

	requests atomic.Int64 // that were signed
	refused  atomic.Int64 // of those: 403
	underWay atomic.Int64 // that send a body just now

	mu      sync.Mutex // guards what follows
	keys    [][2]string
	taken   map[string]int
	objects map[string]*object // by BUCKET/KEY
}

// object is what is told of one.
type object struct {
	Bucket    string    `json:"bucket"`
	Key       string    `json:"key"`
	Size      int64     `json:"size"`
	SHA256    string    `json:"sha256"`
	Writes    int       `json:"writes"` // how often it was made or replaced
	WrittenAt time.Time `json:"written_at"`

	summed int // SHA256 is of this write
}

func serveStore(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("store", flag.ContinueOnError)
	listen := flags.String("listen", ":9000", "address of the store")
	control := flags.String("control", ":9001", "address for those who change it")
	perSecond := flags.Int64("rate", 0, "bytes a second that it takes, of all requests together; 0: no limit")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s, err := newStore(flags.Args(), os.Getenv("AWS_ACCESS_KEY_ID")+":"+os.Getenv("AWS_SECRET_ACCESS_KEY"))
	if err != nil {
		return err
	}
	s.setRate(*perSecond)

	servers := []*http.Server{{Addr: *listen, Handler: s.front(s.s3.Server())}, {Addr: *control, Handler: s.control()}}
	ended := make(chan error, len(servers))
	for _, server := range servers {
		go func() { ended <- server.ListenAndServe() }()
	}
	log.Printf("a store on %s, for those who change it on %s", *listen, *control)
	select {
	case <-ctx.Done():
	case err = <-ended:
	}
	for _, server := range servers {
		server.Close()
	}
	return err
}

func newStore(buckets []string, credentials string) (*store, error) {
	s := &store{backend: s3mem.New(), limit: rate.NewLimiter(rate.Inf, chunk), taken: make(map[string]int), objects: make(map[string]*object)}
	for _, bucket := range buckets {
		if err := s.backend.CreateBucket(context.Background(), bucket); err != nil {
			return nil, fmt.Errorf("create bucket %s: %w", bucket, err)
		}
	}
	s.s3 = gofakes3.New(s.backend, gofakes3.WithV4Auth(nil), gofakes3.WithoutVersioning())
	return s, s.setCredentials(credentials)
}

// front stands before the store, and sees all that is asked of it.
func (s *store) front(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			next.ServeHTTP(w, r)
			return
		}
		s.requests.Add(1)
		if r.Method == http.MethodPut {
			s.underWay.Add(1)
			defer s.underWay.Add(-1)
		}
		r.Body = limited{r.Context(), r.Body, s.limit}
		status := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(status, r)
		s.signedBy(r, status.status)
		switch query := r.URL.Query(); {
		case status.status == http.StatusForbidden:
			s.refused.Add(1)
		case status.status != http.StatusOK:
		case r.Method == http.MethodPut && !query.Has("partNumber"),
			r.Method == http.MethodPost && query.Has("uploadId"):
			s.written(strings.TrimPrefix(r.URL.Path, "/"))
		}
	})
}

var keyID = regexp.MustCompile(`Credential=([^/]+)/`)

// signedBy counts the request, unless it was refused, for the key that signed it.
func (s *store) signedBy(r *http.Request, status int) {
	match := keyID.FindStringSubmatch(r.Header.Get("Authorization"))
	if match == nil || status == http.StatusForbidden {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken[match[1]]++
}

// written notes that there is an object, or a new one in its place.
func (s *store) written(path string) {
	bucket, key, _ := strings.Cut(path, "/")
	if key == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.objects[path]
	if o == nil {
		o = &object{Bucket: bucket, Key: key}
		s.objects[path] = o
	}
	o.Writes++
	o.WrittenAt = time.Now()
}

// list returns all objects, in the order of their names.
func (s *store) list(ctx context.Context) ([]object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []object{}
	for _, o := range s.objects {
		if o.summed != o.Writes {
			if err := s.sum(ctx, o); err != nil {
				return nil, err
			}
		}
		all = append(all, *o)
	}
	slices.SortFunc(all, func(a, b object) int {
		return cmp.Or(strings.Compare(a.Bucket, b.Bucket), strings.Compare(a.Key, b.Key))
	})
	return all, nil
}

func (s *store) sum(ctx context.Context, o *object) error {
	got, err := s.backend.GetObject(ctx, o.Bucket, o.Key, nil)
	if err != nil {
		return fmt.Errorf("get %s/%s: %w", o.Bucket, o.Key, err)
	}
	defer got.Contents.Close()
	hash := sha256.New()
	if o.Size, err = io.Copy(hash, got.Contents); err != nil {
		return fmt.Errorf("read %s/%s: %w", o.Bucket, o.Key, err)
	}
	o.SHA256, o.summed = hex.EncodeToString(hash.Sum(nil)), o.Writes
	return nil
}

func (s *store) setRate(perSecond int64) {
	limit := rate.Limit(perSecond)
	if perSecond <= 0 {
		limit = rate.Inf
	}
	s.limit.SetLimit(limit)
}

// setCredentials has the store take these pairs, lines of ID:SECRET, and no others.
func (s *store) setCredentials(lines string) error {
	var keys [][2]string
	for _, line := range strings.Fields(lines) {
		id, secret, ok := strings.Cut(line, ":")
		if !ok || id == "" || secret == "" {
			return errors.New("credentials are ID:SECRET, of the store at first in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
		}
		keys = append(keys, [2]string{id, secret})
	}
	if len(keys) == 0 {
		return errors.New("no credentials")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys { // first: without any, all requests are let in
		s.s3.AddAuthKeys(map[string]string{k[0]: k[1]})
	}
	for _, old := range s.keys {
		if !slices.ContainsFunc(keys, func(k [2]string) bool { return k[0] == old[0] }) {
			s.s3.DelAuthKeys([]string{old[0]})
		}
	}
	s.keys = keys
	return nil
}

// control answers those who change the store.
func (s *store) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /objects", func(w http.ResponseWriter, r *http.Request) {
		all, err := s.list(r.Context())
		answer(w, all, err)
	})
	mux.HandleFunc("GET /counts", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		taken := maps.Clone(s.taken)
		s.mu.Unlock()
		answer(w, map[string]any{
			"requests": s.requests.Load(), "refused": s.refused.Load(), "under_way": s.underWay.Load(), "taken": taken,
		}, nil)
	})
	mux.HandleFunc("POST /sts", s.sts)
	mux.HandleFunc("PUT /rate", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			var perSecond int64
			if perSecond, err = strconv.ParseInt(strings.TrimSpace(string(body)), 10, 64); err == nil {
				s.setRate(perSecond)
			}
		}
		answer(w, nil, err)
	})
	mux.HandleFunc("PUT /credentials", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = s.setCredentials(string(body))
		}
		answer(w, nil, err)
	})
	return mux
}

func answer(w http.ResponseWriter, value any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	json.NewEncoder(w).Encode(value)
}

// chunk is what a request may read at once. They take turns by it, so it is
// small: then all of them go on, however slow the store is.
const chunk = 4 << 10

// limited is a body of which as much is read as the limit lets through.
type limited struct {
	ctx context.Context
	io.ReadCloser
	limit *rate.Limiter
}

func (l limited) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p[:min(len(p), chunk)])
	if n > 0 {
		if err := l.limit.WaitN(l.ctx, n); err != nil {
			return n, err
		}
	}
	return n, err
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}
