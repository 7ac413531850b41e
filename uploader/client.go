package uploader

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"github.com/lsst-dm/s3daemon/transport"
)

// fallbackRegion signs the requests where nothing else names a region, as with
// most stores that are not Amazon's; they take any.
const fallbackRegion = "us-east-1"

// answerLimits are for how long the store may take over an answer.
var answerLimits = struct {
	answer   time.Duration // for its head
	complete time.Duration // where the store first joins the parts of an upload; some take minutes
	rest     time.Duration // for the rest of it, which is short
}{time.Minute, 10 * time.Minute, 30 * time.Second}

// client is what all pushes share: the SDK's client of the store, what it signs
// with, and its connections, the wire.
//
// The asker is for questions about the store as a whole, by the same way but
// without the gate before it, each on a connection of its own.
type client struct {
	s3          *s3.Client
	base        *url.URL // the endpoint; nil with Amazon
	credentials *credentials
	wire, asker *transport.Transport
}

// newClient makes one. Credentials, region, CA bundle and proxies come from the SDK's
// default chain, but for Config.Keys.
func newClient(ctx context.Context, cfg Config, dialer *transport.Dialer, dial transport.DialFunc) (*client, error) {
	shared, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("load the AWS configuration (AWS_PROFILE, AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE, AWS_CA_BUNDLE and their kin): %w", err)
	}
	if shared.Region == "" {
		shared.Region = fallbackRegion
	}
	if strings.Trim(shared.Region, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		return nil, fmt.Errorf("the AWS region %q is not one: set AWS_REGION to a name such as us-east-1", shared.Region)
	}
	// The chain puts AWS_CA_BUNDLE into the HTTP client that it builds. Ours
	// takes its place only now: given to LoadDefaultConfig, it would make the
	// bundle an error.
	var roots *x509.CertPool
	if built, ok := shared.HTTPClient.(*awshttp.BuildableClient); ok {
		if t := built.GetTransport().TLSClientConfig; t != nil {
			roots = t.RootCAs
		}
	}
	if cfg.Endpoint != "" {
		shared.BaseEndpoint = &cfg.Endpoint
	}
	connections := transport.Config{
		Connections: cfg.MaxConnections, ConnectTimeout: cfg.ConnectTimeout, StallTimeout: cfg.StallTimeout,
		Answer: answerLimits.answer, Rest: answerLimits.rest, Roots: roots, Dial: dial, Refresh: question, Current: dialer.Current,
	}
	keys, err := newCredentials(ctx, cfg)
	if err != nil {
		return nil, err
	}
	wire := transport.New(connections)
	var base *url.URL
	var wrong error
	made := s3.NewFromConfig(shared, func(o *s3.Options) {
		o.HTTPClient = plain{wire}
		if o.BaseEndpoint != nil {
			base, wrong = parseEndpoint(*o.BaseEndpoint)
			o.UsePathStyle = true // virtual hosts need DNS that custom stores seldom have
			o.EndpointResolverV2 = resolver{base, o.Region}
			o.AuthSchemePreference = nil // there is one
		}
		// Sessions are for S3 Express, and would be requests that take no slot.
		o.DisableS3ExpressSessionAuth = aws.Bool(true)
		o.Credentials = keys
		o.Retryer = aws.NopRetryer{} // delivery.request retries, by retryPolicy
		// We bring checksums of our own. The SDK's default is a trailer that
		// many stores refuse; the manager has the same setting once more.
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.ContinueHeaderThresholdBytes = -1 // 100-continue costs a round trip
		o.Logger = logging.Nop{}
	})
	if wrong != nil {
		return nil, wrong
	}
	connections.Connections, connections.Once = mostQuestions, true
	connections.Dial = dialer.Dial
	return &client{s3: made, base: base, credentials: keys, wire: wire, asker: transport.New(connections)}, nil
}
