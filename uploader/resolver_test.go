package uploader

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/lsst-dm/s3daemon/push"
)

// recorder is an HTTP client that refuses all requests, and keeps them.
type recorder struct{ requests []*http.Request }

func (r *recorder) Do(req *http.Request) (*http.Response, error) {
	r.requests = append(r.requests, req)
	return &http.Response{StatusCode: http.StatusForbidden, Header: make(http.Header), Body: http.NoBody, Request: req}, nil
}

// operations are all that the daemon asks a store for, about one object.
var operations = map[string]func(c *s3.Client, bucket, key *string, opt func(*s3.Options)) error{
	"PutObject": func(c *s3.Client, bucket, key *string, opt func(*s3.Options)) error {
		_, err := c.PutObject(context.Background(), &s3.PutObjectInput{Bucket: bucket, Key: key}, opt)
		return err
	},
	"HeadObject": func(c *s3.Client, bucket, key *string, opt func(*s3.Options)) error {
		_, err := c.HeadObject(context.Background(), &s3.HeadObjectInput{Bucket: bucket, Key: key}, opt)
		return err
	},
	"CreateMultipartUpload": func(c *s3.Client, bucket, key *string, opt func(*s3.Options)) error {
		_, err := c.CreateMultipartUpload(context.Background(), &s3.CreateMultipartUploadInput{Bucket: bucket, Key: key}, opt)
		return err
	},
	"UploadPart": func(c *s3.Client, bucket, key *string, opt func(*s3.Options)) error {
		_, err := c.UploadPart(context.Background(), &s3.UploadPartInput{Bucket: bucket, Key: key, UploadId: aws.String("u"), PartNumber: aws.Int32(1)}, opt)
		return err
	},
	"CompleteMultipartUpload": func(c *s3.Client, bucket, key *string, opt func(*s3.Options)) error {
		_, err := c.CompleteMultipartUpload(context.Background(), &s3.CompleteMultipartUploadInput{Bucket: bucket, Key: key, UploadId: aws.String("u")}, opt)
		return err
	},
	"AbortMultipartUpload": func(c *s3.Client, bucket, key *string, opt func(*s3.Options)) error {
		_, err := c.AbortMultipartUpload(context.Background(), &s3.AbortMultipartUploadInput{Bucket: bucket, Key: key, UploadId: aws.String("u")}, opt)
		return err
	},
	"ListParts": func(c *s3.Client, bucket, key *string, opt func(*s3.Options)) error {
		_, err := c.ListParts(context.Background(), &s3.ListPartsInput{Bucket: bucket, Key: key, UploadId: aws.String("u")}, opt)
		return err
	},
	"ListMultipartUploads": func(c *s3.Client, bucket, key *string, opt func(*s3.Options)) error {
		_, err := c.ListMultipartUploads(context.Background(), &s3.ListMultipartUploadsInput{Bucket: bucket, Prefix: key}, opt)
		return err
	},
	"ListObjectVersions": func(c *s3.Client, bucket, key *string, opt func(*s3.Options)) error {
		_, err := c.ListObjectVersions(context.Background(), &s3.ListObjectVersionsInput{Bucket: bucket, Prefix: key}, opt)
		return err
	},
	"DeleteObject": func(c *s3.Client, bucket, key *string, opt func(*s3.Options)) error {
		_, err := c.DeleteObject(context.Background(), &s3.DeleteObjectInput{Bucket: bucket, Key: key}, opt)
		return err
	},
}

// strangeBuckets have names by which the SDK finds other hosts than the endpoint.
var strangeBuckets = map[string]string{ // how they are in a path
	"plain": "plain", "Upper_Case": "Upper_Case", "a.b.c": "a.b.c", "mine-abc123-s3alias": "mine-abc123-s3alias", "tenant:bucket": "tenant%3Abucket",
	"test-accessp-o0b1d075431d83bebde8xz5w8ijx1qzlbp3i3kuse10--op-s3": "test-accessp-o0b1d075431d83bebde8xz5w8ijx1qzlbp3i3kuse10--op-s3",
	"evil--zz9-az9--x-s3":  "evil--zz9-az9--x-s3",
	"evil--zz9-az9--xa-s3": "evil--zz9-az9--xa-s3",
	"evil--ol-s3":          "evil--ol-s3",
	"arn:aws:s3:us-west-2:123456789012:accesspoint:mine":                                      "arn%3Aaws%3As3%3Aus-west-2%3A123456789012%3Aaccesspoint%3Amine",
	"arn:aws:s3::123456789012:accesspoint:mine.mrap":                                          "arn%3Aaws%3As3%3A%3A123456789012%3Aaccesspoint%3Amine.mrap",
	"arn:aws:s3-object-lambda:us-west-2:123456789012:accesspoint:mine":                        "arn%3Aaws%3As3-object-lambda%3Aus-west-2%3A123456789012%3Aaccesspoint%3Amine",
	"arn:aws:s3-outposts:us-west-2:123456789012:outpost:op-01234567890123456:accesspoint:min": "arn%3Aaws%3As3-outposts%3Aus-west-2%3A123456789012%3Aoutpost%3Aop-01234567890123456%3Aaccesspoint%3Amin",
}

// TestEveryRequestGoesToTheEndpoint: whatever a bucket's name means to Amazon, and
// whatever the AWS configuration prefers, no request and no signature goes elsewhere.
func TestEveryRequestGoesToTheEndpoint(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_REGION": "eu-here-1", "AWS_AUTH_SCHEME_PREFERENCE": "sigv4a,noAuth", "AWS_S3_USE_ARN_REGION": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true", "AWS_USE_FIPS_ENDPOINT": "true",
	} {
		t.Setenv(name, value)
	}
	r := newRig(t, func(c *Config) { c.Endpoint = "http://127.0.0.1:1/pre fix/" })
	check := func(t *testing.T, seen *recorder, paths ...string) {
		t.Helper()
		if len(seen.requests) != 1 {
			t.Fatalf("%d requests", len(seen.requests))
		}
		req := seen.requests[0]
		if req.URL.Scheme != "http" || req.URL.Host != "127.0.0.1:1" || req.Host != "" && req.Host != "127.0.0.1:1" || !slices.Contains(paths, req.URL.EscapedPath()) {
			t.Errorf("it goes to %s, Host %q, want %q", req.URL, req.Host, paths)
		}
		if by := req.Header.Get("Authorization"); !strings.HasPrefix(by, "AWS4-HMAC-SHA256 Credential=") || !strings.Contains(by, "/eu-here-1/s3/aws4_request") {
			t.Errorf("it is signed %s", by)
		}
	}
	const key, escapedKey = "d/a b+ü", "d/a%20b%2B%C3%BC"
	for bucket, escaped := range strangeBuckets {
		atBucket := "/pre%20fix/" + escaped
		for name, ask := range operations {
			t.Run(bucket+" "+name, func(t *testing.T) {
				seen := new(recorder)
				err := ask(r.client, &bucket, aws.String(key), func(o *s3.Options) { o.HTTPClient = seen })
				if answerOf(err).Status != http.StatusForbidden {
					t.Errorf("%v", err)
				}
				check(t, seen, atBucket+"/"+escapedKey, atBucket) // those that list are about the bucket
				if about, object := seen.requests[0].URL.EscapedPath(), !strings.HasPrefix(name, "List") || name == "ListParts"; object != (about != atBucket) {
					t.Errorf("it is about %s", about)
				}
			})
		}
		t.Run(bucket+" putter", func(t *testing.T) {
			seen := new(recorder)
			by := &putter{options: r.putter.options, base: r.putter.base, signer: r.putter.signer}
			by.options.HTTPClient = seen
			_, err := by.put(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: aws.String(key), Body: strings.NewReader(""), ContentLength: new(int64)}, "UNSIGNED-PAYLOAD")
			if answerOf(err).Status != http.StatusForbidden {
				t.Errorf("%v", err)
			}
			check(t, seen, atBucket+"/"+escapedKey)
		})
		t.Run(bucket+" questions", func(t *testing.T) {
			host, err := r.hostOf(bucket)
			if err != nil || host.Host != "127.0.0.1:1" {
				t.Errorf("%v, %v", host, err)
			}
		})
	}
}

// TestAllOperationsAreTested: what the daemon asks for is what the test above has.
func TestAllOperationsAreTested(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	used := make(map[string]bool)
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		for _, call := range regexp.MustCompile(`\.client\.([A-Z]\w+)\(`).FindAllSubmatch(text, -1) {
			used[string(call[1])] = true
		}
	}
	delete(used, "Options")
	if got, want := slices.Sorted(maps.Keys(used)), slices.Sorted(maps.Keys(operations)); !slices.Equal(got, want) {
		t.Errorf("the daemon asks for %v, tested are %v", got, want)
	}
}

// TestBucketsOfAmazon: without an endpoint, what leads to other services than S3 is
// refused, and nothing is asked for it; with one it is a name.
func TestBucketsOfAmazon(t *testing.T) {
	amazon := newRig(t, func(c *Config) { c.Endpoint = "" })
	elsewhere := newRig(t)
	for bucket, good := range map[string]bool{
		"plain-bucket-of-nobody": true, "Upper_Case": true, "a.b.c": true, "mine-abc123-s3alias": true, "x--op-s3x": true,
		"mine-o0b1--op-s3": false, "mine--use1-az4--x-s3": false, "mine--use1-az4--xa-s3": false,
		"arn:aws:s3:us-west-2:123456789012:accesspoint:mine": false, "arn:aws:s3:us-west-2:123456789012:accesspoint": false, "tenant:bucket": false,
	} {
		dest := push.Destination{Bucket: bucket, Key: "k"}
		if err := elsewhere.checkPlace(dest); err != nil {
			t.Errorf("%s at an endpoint: %v", bucket, err)
		}
		err := amazon.checkPlace(dest)
		if known, ok := errors.AsType[*push.Error](err); (err == nil) != good || !good && (!ok || known.Code != push.InvalidDestination) {
			t.Errorf("%s: %v", bucket, err)
		}
	}
	path, _ := amazon.file(t, "f", 1)
	receipt, err := amazon.Push(t.Context(), push.Request{File: path, Destination: "s3://mine-o0b1--op-s3/k"})
	if known, ok := errors.AsType[*push.Error](err); !ok || known.Code != push.InvalidDestination || receipt.ID != "" {
		t.Errorf("%v, %+v", err, receipt)
	}
	cfg := amazon.cfg
	cfg.Warmup = push.Destination{Bucket: "mine-o0b1--op-s3", Key: "k"}
	if _, err := newUploader(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "S3DAEMON_WARMUP") {
		t.Errorf("a warm-up there: %v", err)
	}
}

func TestParseEndpoint(t *testing.T) {
	for text, good := range map[string]bool{
		"https://store.example": true, "http://127.0.0.1:9000/": true, "http://[::1]:9000/pre": true, "http://store": true, "http://store.1a": true, "http://0xstore": true,
		"store.example": false, "ftp://store.example": false, "http://": false, "http://:80": false, "http://a:b@store.example": false, "http://store.example?x": false, "http://store.example/#x": false,
		"http://134744072": false, "http://0x08080808:80": false, "http://0X8.0X8.0X8.0X8": false, "http://127.1": false, "http://010.0.0.1": false, "http://8.8.8.8.": false, "http://store.0x": false,
	} {
		if u, err := parseEndpoint(text); (err == nil) != good || (u != nil) != good {
			t.Errorf("%s: %v, %v", text, u, err)
		}
	}
}
