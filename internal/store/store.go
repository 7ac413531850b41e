// Package store runs an S3 store in memory, on a loopback port, for the demo
// and for tests. It checks signatures, Content-MD5 and checksum headers, and
// forgets everything when it is closed. The daemon never starts it.
//
//	s, err := store.Start([]string{"demo"})
//	defer s.Close()
//	os.Setenv("S3_ENDPOINT_URL", s.URL)
package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/rclone/gofakes3"
	"github.com/rclone/gofakes3/s3mem"
)

// Store is a running store.
type Store struct {
	URL       string // http://127.0.0.1:port
	AccessKey string
	SecretKey string

	backend *s3mem.Backend
	server  *http.Server
	done    chan struct{}
}

// Start starts a store on a free loopback port, with these buckets and with
// keys made for it alone. The wrappers, if any, stand in front of its handler,
// the last one outermost: tests count and spoil requests with them.
func Start(buckets []string, wrap ...func(http.Handler) http.Handler) (*Store, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the store: %w", err)
	}
	return start(listener, buckets, wrap...)
}

func start(listener net.Listener, buckets []string, wrap ...func(http.Handler) http.Handler) (*Store, error) {
	s := &Store{
		URL:       "http://" + listener.Addr().String(),
		AccessKey: "DEMO" + rand.Text()[:16], SecretKey: rand.Text(),
		backend: s3mem.New(), done: make(chan struct{}),
	}
	for _, b := range buckets {
		if err := s.backend.CreateBucket(context.Background(), b); err != nil {
			listener.Close()
			return nil, fmt.Errorf("create bucket %s: %w", b, err)
		}
	}
	handler := gofakes3.New(s.backend,
		gofakes3.WithV4Auth(map[string]string{s.AccessKey: s.SecretKey}),
		gofakes3.WithoutVersioning(),
	).Server()
	for _, w := range wrap {
		handler = w(handler)
	}
	s.server = &http.Server{Handler: handler}
	go func() {
		defer close(s.done)
		if err := s.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			panic(err) // nothing but Close ends it
		}
	}()
	return s, nil
}

// Get returns an object's bytes.
func (s *Store) Get(bucket, key string) ([]byte, error) {
	object, err := s.backend.GetObject(context.Background(), bucket, key, nil)
	if err != nil {
		return nil, fmt.Errorf("get %s/%s: %w", bucket, key, err)
	}
	defer object.Contents.Close()
	return io.ReadAll(object.Contents)
}

// Put makes an object without a request.
func (s *Store) Put(bucket, key string, content []byte) error {
	_, err := s.backend.PutObject(context.Background(), bucket, key, nil, bytes.NewReader(content), int64(len(content)))
	return err
}

// Forget removes an object, if there is one.
func (s *Store) Forget(bucket, key string) error {
	_, err := s.backend.DeleteObject(context.Background(), bucket, key)
	return err
}

// Metadata returns what an object's headers hold, by canonical header name.
func (s *Store) Metadata(bucket, key string) (map[string]string, error) {
	object, err := s.backend.HeadObject(context.Background(), bucket, key)
	if err != nil {
		return nil, fmt.Errorf("head %s/%s: %w", bucket, key, err)
	}
	return object.Metadata, nil
}

// Close stops the store and cuts its connections.
func (s *Store) Close() error {
	err := s.server.Close()
	<-s.done
	return err
}
