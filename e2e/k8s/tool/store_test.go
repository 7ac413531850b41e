package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/lsst-dm/s3daemon/e2e/k8s/content"
)

// The tests on a cluster believe what the store says of itself, so that is
// compared here with what was done to it.
func TestStore(t *testing.T) {
	s, err := newStore([]string{"raw"}, "old:secret")
	if err != nil {
		t.Fatal(err)
	}
	front, control := httptest.NewServer(s.front(s.s3.Server())), httptest.NewServer(s.control())
	defer front.Close()
	defer control.Close()
	const size = 100_000
	put := func(id, secret, key string) error {
		client := s3.New(s3.Options{
			BaseEndpoint: &front.URL, UsePathStyle: true, Region: "us-east-1", RetryMaxAttempts: 1,
			Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}, nil
			}),
		})
		body, err := io.ReadAll(content.Reader(key, size))
		if err != nil {
			return err
		}
		_, err = client.PutObject(t.Context(), &s3.PutObjectInput{
			Bucket: aws.String("raw"), Key: &key, Body: bytes.NewReader(body),
		})
		return err
	}
	change := func(what, to string) {
		request, err := http.NewRequest(http.MethodPut, control.URL+"/"+what, strings.NewReader(to))
		if err != nil {
			t.Fatal(err)
		}
		if status, body, err := do(control.Client(), request); err != nil || status != http.StatusOK {
			t.Fatalf("PUT /%s: %d %s %v", what, status, body, err)
		}
	}
	get := func(what string, into any) {
		response, err := control.Client().Get(control.URL + "/" + what)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if err := json.NewDecoder(response.Body).Decode(into); err != nil {
			t.Fatal(err)
		}
	}

	for _, key := range []string{"b", "a", "a"} {
		if err := put("old", "secret", key); err != nil {
			t.Fatal(err)
		}
	}
	change("credentials", "old:secret\nnew:other")
	if err := put("old", "secret", "b"); err != nil {
		t.Error("old credentials beside new ones:", err)
	}
	change("credentials", "new:other")
	if err := put("old", "secret", "c"); err == nil {
		t.Error("old credentials are taken after a change")
	}
	if err := put("new", "other", "d/e"); err != nil {
		t.Error("new credentials:", err)
	}
	var objects []object
	get("objects", &objects)
	want := []object{{Key: "a", Writes: 2}, {Key: "b", Writes: 2}, {Key: "d/e", Writes: 1}}
	if len(objects) != len(want) {
		t.Fatalf("%d objects, want %d: %+v", len(objects), len(want), objects)
	}
	for i, o := range objects {
		if o.Bucket != "raw" || o.Key != want[i].Key || o.Writes != want[i].Writes ||
			o.Size != size || o.SHA256 != content.Digest(o.Key, size) || time.Since(o.WrittenAt) > time.Minute {
			t.Errorf("object %d is %+v", i, o)
		}
	}
	var counts struct {
		Requests, Refused int
		UnderWay          int `json:"under_way"`
		Taken             map[string]int
	}
	get("counts", &counts)
	if counts.Requests != 6 || counts.Refused != 1 || counts.UnderWay != 0 || counts.Taken["old"] != 4 || counts.Taken["new"] != 1 {
		t.Error("counts:", counts)
	}

	change("rate", "100000")
	began := time.Now()
	if err := put("new", "other", "f"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 900*time.Millisecond {
		t.Errorf("%d bytes at 100000 a second took %v", size, took)
	}
}
