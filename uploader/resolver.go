package uploader

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyauth "github.com/aws/smithy-go/auth"
	"github.com/aws/smithy-go/encoding/httpbinding"
	smithyendpoints "github.com/aws/smithy-go/endpoints"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/lsst-dm/s3daemon/push"
)

// resolver has the SDK make all requests at one endpoint, with the bucket in the path,
// whatever its name is, and sign them for S3 in one region. The SDK's own rules send
// buckets with the names of S3 Express, of Outposts or of access points elsewhere, to
// Amazon too, with the signature and the session token.
type resolver struct {
	base   *url.URL
	region string
}

// ResolveEndpoint returns where requests about a bucket go.
func (r resolver) ResolveEndpoint(_ context.Context, about s3.EndpointParameters) (smithyendpoints.Endpoint, error) {
	at := smithyendpoints.Endpoint{URI: *r.base, Headers: make(http.Header)}
	if about.Bucket != nil {
		at.URI = *inPath(r.base, *about.Bucket)
	}
	sign := &smithyauth.Option{SchemeID: smithyauth.SchemeIDSigV4}
	smithyhttp.SetSigV4SigningName(&sign.SignerProperties, signedAs)
	smithyhttp.SetSigV4SigningRegion(&sign.SignerProperties, r.region)
	smithyhttp.SetDisableDoubleEncoding(&sign.SignerProperties, true) // S3 signs the path as it is sent
	smithyauth.SetAuthOptions(&at.Properties, []*smithyauth.Option{sign})
	return at, nil
}

// signedAs is the service that signatures are for.
const signedAs = "s3"

// inPath returns the URL of a bucket, or of bucket/key, below an endpoint.
func inPath(base *url.URL, name string) *url.URL {
	u := *base
	u.Path = base.Path + "/" + name
	u.RawPath = base.EscapedPath() + "/" + httpbinding.EscapePath(name, false)
	return &u
}

// parseEndpoint reads an endpoint that the AWS configuration may have brought. What is
// wrong with it is not repeated, for it may hold a password.
func parseEndpoint(endpoint string) (*url.URL, error) {
	const from = "the endpoint of the store (S3_ENDPOINT_URL, or AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_S3 and endpoint_url of the AWS configuration)"
	u, err := url.Parse(strings.TrimRight(endpoint, "/"))
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.ContainsAny(endpoint, "?#"):
		return nil, errors.New(from + " is not a URL such as https://s3.example.org")
	case u.User != nil:
		return nil, errors.New(from + " has a user or password in it, which no store is asked with")
	case oddAddress(u.Hostname()):
		return nil, errors.New(from + " has a number for a host, which is an address to some programs and a name to others: write the address with its dots")
	}
	return u, nil
}

// oddAddress reports whether a host is an IP address as only some resolvers read it,
// such as 0x7f000001, 2130706433 or 127.1.
func oddAddress(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return false
	}
	labels := strings.Split(strings.TrimSuffix(strings.ToLower(host), "."), ".")
	last := labels[len(labels)-1]
	hex, isHex := strings.CutPrefix(last, "0x")
	return last != "" && strings.Trim(last, "0123456789") == "" || isHex && strings.Trim(hex, "0123456789abcdef") == ""
}

// checkBucket returns an *push.Error for a bucket that is none of the kind that is asked
// for at Amazon: there the names of some lead to other services than S3.
func (u *Uploader) checkBucket(dest push.Destination) error {
	if u.base != nil {
		return nil
	}
	for _, suffix := range []string{"--op-s3", "--x-s3", "--xa-s3"} {
		if strings.HasSuffix(dest.Bucket, suffix) {
			return push.Errorf(push.InvalidDestination, "%s is the name of a bucket of S3 Express or of an access point there or on Outposts, which the daemon does not push to: choose a general purpose bucket", push.Quote(dest.Bucket))
		}
	}
	if strings.Contains(dest.Bucket, ":") {
		return push.Errorf(push.InvalidDestination, "%s is no bucket of Amazon S3: give its name, or the alias of an access point, in place of an ARN", push.Quote(dest.Bucket))
	}
	return nil
}

// checkPlace returns an *push.Error for a destination that pushes may not have.
func (u *Uploader) checkPlace(dest push.Destination) error {
	if err := u.checkBucket(dest); err != nil {
		return err
	}
	return u.places.Check(dest)
}
