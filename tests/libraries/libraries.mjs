// Signs and verifies deliveries with the vendors' own npm packages, for tests/it/libraries.rs.
//
// The first line of the output lists the libraries, each as its vendor and its name. Then every line of the
// input gets a line of output: an answer of each library of the vendor.
//
// A line of the input is an unsigned delivery with `vendor`, `secret`, `url` and `body`, or a signed one that
// also has `headers`. A library signs the former, if it can. It gives its verdict on the latter. For Amazon SNS,
// the line also has the certificate, which the library would otherwise fetch.

import https from "node:https";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";

import adyen from "@adyen/api-library";
import { verifyWebhook as verifyClerk } from "@clerk/backend/webhooks";
import hubspot from "@hubspot/api-client";
import { LinearWebhookClient } from "@linear/sdk/webhooks";
import Mux from "@mux/mux-node";
import { Webhooks as GitHub } from "@octokit/webhooks";
import { Paddle } from "@paddle/paddle-node-sdk";
import { encodeSignatureHeader, isValidSignature } from "@sanity/webhook";
import sendgrid from "@sendgrid/eventwebhook";
import "@shopify/shopify-api/adapters/node";
import { ApiVersion, shopifyApi } from "@shopify/shopify-api";
import { WorkOS } from "@workos-inc/node";
import { AwsLambdaReceiver } from "@zoom/rivet/meetings";
import { computeWebhookSignature } from "box-node-sdk/lib/internal/utils";
import { WebhooksManager } from "box-node-sdk/lib/managers/webhooks";
import braintree from "braintree";
import { basicAuthValidator } from "chargebee";
import { verifyKey } from "discord-interactions";
import { parse as parseGoCardless } from "gocardless-nodejs/webhooks";
import Lithic from "lithic";
import ModernTreasury from "modern-treasury";
import OpenAI from "openai";
import Orb from "orb-billing";
import Pusher from "pusher";
import Razorpay from "razorpay";
import { validateWebhook as validateReplicate } from "replicate";
import { Resend } from "resend";
import { sign as signRetell, verify as verifyRetell } from "retell-sdk";
import SnsValidator from "sns-validator";
import { Webhook as StandardWebhook } from "standardwebhooks";
import Stripe from "stripe";
import { Webhook as Svix } from "svix";
import Telnyx from "telnyx";
import twilio from "twilio";
import { WebflowClient } from "webflow-api";
import { WhatsAppAPI } from "whatsapp-api-js";

// Standard output belongs to the answers.
console.log = console.debug = () => {};

const KEY = "plainly-no-key";
const adyenHmac = new adyen.hmacValidator();
const github = (secret) => new GitHub({ secret });
const modernTreasury = new ModernTreasury({ apiKey: KEY, organizationID: KEY });
const mux = new Mux({ tokenId: KEY, tokenSecret: KEY });
const openai = new OpenAI({ apiKey: KEY });
const orb = new Orb({ apiKey: KEY });
const sns = new SnsValidator();
const workos = new WorkOS(KEY);

const seconds = () => Math.floor(Date.now() / 1000);
const form = (body) => {
  const fields = {};
  for (const [name, value] of new URLSearchParams(body)) {
    fields[name] = name in fields ? [fields[name], value].flat() : value;
  }
  return fields;
};
const notifications = (body) =>
  JSON.parse(body).notificationItems?.map((item) => item.NotificationRequestItem);
const braintreeGateway = (secret) => {
  const [publicKey, privateKey] = secret.split(":");
  const environment = braintree.Environment.Sandbox;
  return new braintree.BraintreeGateway({ environment, merchantId: KEY, publicKey, privateKey });
};
const pusher = (secret) => {
  const [key, rest] = secret.split(":");
  return new Pusher({ appId: "1", key, secret: rest, cluster: "eu" });
};
const standard = (Webhook, family) => ({
  sign: ({ secret, body }) => {
    const now = new Date();
    const signature = new Webhook(secret).sign("msg_library", now, body);
    const timestamp = String(Math.floor(now / 1000));
    const headers = { id: "msg_library", timestamp, signature };
    return { headers: Object.fromEntries(Object.entries(headers).map(([k, v]) => [`${family}-${k}`, v])) };
  },
  verify: ({ secret, body, headers }) => new Webhook(secret).verify(body, headers),
});

// `verify` returns false or throws if the library refuses the delivery. A library without `sign` only verifies.
const LIBRARIES = [
  {
    vendor: "stripe",
    library: "stripe",
    sign: ({ secret, body }) => ({
      headers: {
        "stripe-signature": Stripe.webhooks.generateTestHeaderString({ payload: body, secret }),
      },
    }),
    verify: ({ secret, body, headers }) =>
      Stripe.webhooks.constructEvent(body, headers["stripe-signature"], secret),
  },
  { vendor: "standard-webhooks", library: "standardwebhooks", ...standard(StandardWebhook, "webhook") },
  { vendor: "standard-webhooks", library: "svix", ...standard(Svix, "svix") },
  { vendor: "gitlab", library: "standardwebhooks", ...standard(StandardWebhook, "webhook") },
  { vendor: "brex", library: "standardwebhooks", ...standard(StandardWebhook, "webhook") },
  {
    vendor: "github",
    library: "@octokit/webhooks",
    sign: async ({ secret, body }) => ({
      headers: {
        "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "x-github-event": "push",
        "x-hub-signature-256": await github(secret).sign(body),
      },
    }),
    verify: ({ secret, body, headers }) => github(secret).verify(body, headers["x-hub-signature-256"]),
  },
  {
    vendor: "adyen",
    library: "@adyen/api-library",
    sign: ({ secret, body }) => {
      const document = JSON.parse(body);
      if (!document.notificationItems) {
        return { headers: { hmacsignature: adyenHmac.calculateHmac(body, secret), protocol: "HmacSHA256" } };
      }
      for (const { NotificationRequestItem: item } of document.notificationItems) {
        item.additionalData = { ...item.additionalData, hmacSignature: adyenHmac.calculateHmac(item, secret) };
      }
      return { headers: {}, body: JSON.stringify(document) };
    },
    verify: ({ secret, body, headers }) =>
      notifications(body)?.every((item) => adyenHmac.validateHMAC(item, secret)) ??
      adyenHmac.validateHMACSignature(secret, headers.hmacsignature, body),
  },
  {
    vendor: "twilio",
    library: "twilio",
    sign: ({ secret, url, body }) => {
      const isJson = body.startsWith("{");
      const query = isJson ? `bodySHA256=${twilio.getExpectedBodyHash(body)}` : undefined;
      const called = isJson ? `${url}?${query}` : url;
      const signature = twilio.getExpectedTwilioSignature(secret, called, isJson ? {} : form(body));
      const type = isJson ? "application/json" : "application/x-www-form-urlencoded";
      return { headers: { "content-type": type, "x-twilio-signature": signature }, query };
    },
    verify: ({ secret, url, body, headers }) =>
      url.includes("bodySHA256=")
        ? twilio.validateRequestWithBody(secret, headers["x-twilio-signature"], url, body)
        : twilio.validateRequest(secret, headers["x-twilio-signature"], url, form(body)),
  },
  {
    vendor: "paddle",
    library: "@paddle/paddle-node-sdk",
    verify: ({ secret, body, headers }) =>
      new Paddle(KEY).webhooks.isSignatureValid(body, secret, headers["paddle-signature"]),
  },
  {
    vendor: "shopify",
    library: "@shopify/shopify-api",
    verify: async ({ secret, url, body, headers }) => {
      const shopify = shopifyApi({
        apiKey: KEY,
        apiSecretKey: secret,
        apiVersion: ApiVersion.Unstable,
        hostName: "router.example",
        isEmbeddedApp: false,
        logger: { log: () => {} },
      });
      const rawRequest = { method: "POST", url, headers };
      return (await shopify.webhooks.validate({ rawBody: body, rawRequest })).valid;
    },
  },
  {
    vendor: "meta",
    library: "whatsapp-api-js",
    verify: ({ secret, body, headers }) =>
      new WhatsAppAPI({ token: KEY, appSecret: secret, v: "v24.0" }).verifyRequestSignature(
        body,
        headers["x-hub-signature-256"],
      ),
  },
  {
    vendor: "aws-sns",
    library: "sns-validator",
    verify: ({ body, certificate }) =>
      new Promise((resolve) => {
        // The library asks nobody else.
        https.get = (_address, answer) => {
          answer(Object.assign(Readable.from([certificate]), { statusCode: 200 }));
          return { on: () => {} };
        };
        sns.validate(body, (error) => resolve(!error));
      }),
  },
  {
    vendor: "sendgrid",
    library: "@sendgrid/eventwebhook",
    verify: ({ secret, body, headers }) => {
      const webhook = new sendgrid.EventWebhook();
      const header = (name) => headers[sendgrid.EventWebhookHeader[name]().toLowerCase()];
      const key = webhook.convertPublicKeyToECDSA(secret);
      return webhook.verifySignature(key, body, header("SIGNATURE"), header("TIMESTAMP"));
    },
  },
  {
    vendor: "discord",
    library: "discord-interactions",
    verify: ({ secret, body, headers }) =>
      verifyKey(body, headers["x-signature-ed25519"], headers["x-signature-timestamp"], secret),
  },
  {
    vendor: "linear",
    library: "@linear/sdk",
    verify: ({ secret, body, headers }) =>
      new LinearWebhookClient(secret).parseData(Buffer.from(body), headers["linear-signature"]),
  },
  {
    vendor: "workos",
    library: "@workos-inc/node",
    sign: async ({ secret, body }) => {
      const timestamp = Date.now();
      const signature = await workos.webhooks.computeSignature(timestamp, JSON.parse(body), secret);
      return { headers: { "workos-signature": `t=${timestamp}, v1=${signature}` } };
    },
    verify: ({ secret, body, headers }) =>
      workos.webhooks.verifyHeader({
        payload: JSON.parse(body),
        sigHeader: headers["workos-signature"],
        secret,
      }),
  },
  {
    vendor: "hubspot",
    library: "@hubspot/api-client",
    sign: ({ secret, url, body }) => {
      const timestamp = Date.now();
      const options = { clientSecret: secret, url, requestBody: body, timestamp };
      const signature = hubspot.Signature.getSignature("POST", "v3", options);
      return {
        headers: {
          "x-hubspot-request-timestamp": String(timestamp),
          "x-hubspot-signature-v3": signature,
        },
      };
    },
    verify: ({ secret, url, body, headers }) =>
      hubspot.Signature.isValid({
        clientSecret: secret,
        requestBody: body,
        signature: headers["x-hubspot-signature-v3"],
        signatureVersion: "v3",
        timestamp: Number(headers["x-hubspot-request-timestamp"]),
        url,
      }),
  },
  {
    vendor: "pusher",
    library: "pusher",
    sign: ({ secret, body }) => {
      const { token } = pusher(secret).config;
      return { headers: { "x-pusher-key": token.key, "x-pusher-signature": token.sign(body) } };
    },
    verify: ({ secret, body, headers }) => {
      const request = { headers: { ...headers, "content-type": "application/json" }, rawBody: body };
      return pusher(secret).webhook(request).isValid();
    },
  },
  {
    vendor: "razorpay",
    library: "razorpay",
    verify: ({ secret, body, headers }) =>
      Razorpay.validateWebhookSignature(body, headers["x-razorpay-signature"], secret),
  },
  {
    vendor: "sanity",
    library: "@sanity/webhook",
    sign: async ({ secret, body }) => ({
      headers: {
        "idempotency-key": "sanity-1",
        "sanity-webhook-signature": await encodeSignatureHeader(body, Date.now(), secret),
      },
    }),
    verify: ({ secret, body, headers }) =>
      isValidSignature(body, headers["sanity-webhook-signature"], secret),
  },
  {
    vendor: "clerk",
    library: "@clerk/backend",
    verify: ({ secret, url, body, headers }) =>
      verifyClerk(new Request(url, { method: "POST", headers, body }), { signingSecret: secret }),
  },
  {
    vendor: "resend",
    library: "resend",
    verify: ({ secret, body, headers }) =>
      new Resend(KEY).webhooks.verify({
        payload: body,
        headers: {
          id: headers["svix-id"],
          timestamp: headers["svix-timestamp"],
          signature: headers["svix-signature"],
        },
        webhookSecret: secret,
      }),
  },
  {
    vendor: "openai",
    library: "openai",
    verify: ({ secret, body, headers }) => openai.webhooks.unwrap(body, headers, secret),
  },
  {
    vendor: "mux",
    library: "@mux/mux-node",
    sign: async ({ secret, body }) => {
      const timestamp = seconds();
      const signature = await mux.webhooks.computeSignature(`${timestamp}.${body}`, secret);
      return { headers: { "mux-signature": `t=${timestamp},v1=${signature}` } };
    },
    verify: ({ secret, body, headers }) => mux.webhooks.unwrap(body, headers, secret),
  },
  {
    vendor: "telnyx",
    library: "telnyx",
    verify: ({ secret, body, headers }) =>
      new Telnyx({ apiKey: KEY }).webhooks.unwrap(body, { headers, key: secret }),
  },
  {
    vendor: "lithic",
    library: "lithic",
    verify: ({ secret, body, headers }) =>
      new Lithic({ apiKey: KEY }).webhooks.unwrap(body, headers, secret),
  },
  {
    vendor: "orb",
    library: "orb-billing",
    sign: ({ secret, body }) => {
      const timestamp = new Date().toISOString().replace("Z", "");
      const signature = orb.webhooks.signPayload(body, { timestamp, secret });
      return { headers: { "x-orb-timestamp": timestamp, "x-orb-signature": signature } };
    },
    verify: ({ secret, body, headers }) => orb.webhooks.unwrap(body, headers, secret),
  },
  {
    vendor: "modern-treasury",
    library: "modern-treasury",
    sign: ({ secret, body }) => ({
      headers: { "x-signature": modernTreasury.webhooks.getSignature(body, { key: secret }) },
    }),
    verify: ({ secret, body, headers }) =>
      modernTreasury.webhooks.validateSignature(body, headers, { key: secret }),
  },
  {
    vendor: "gocardless",
    library: "gocardless-nodejs",
    verify: ({ secret, body, headers }) => parseGoCardless(body, secret, headers["webhook-signature"]),
  },
  {
    vendor: "retell",
    library: "retell-sdk",
    sign: async ({ secret, body }) => ({
      headers: { "x-retell-signature": await signRetell(body, secret) },
    }),
    verify: ({ secret, body, headers }) => verifyRetell(body, secret, headers["x-retell-signature"]),
  },
  {
    vendor: "replicate",
    library: "replicate",
    verify: ({ secret, body, headers }) => validateReplicate({ headers, body }, secret),
  },
  {
    vendor: "webflow",
    library: "webflow-api",
    verify: ({ secret, body, headers }) =>
      new WebflowClient({ accessToken: KEY }).webhooks.verifySignature({ headers, body, secret }),
  },
  {
    vendor: "box",
    library: "box-node-sdk",
    sign: async ({ secret, body }) => {
      const headers = {
        "box-delivery-timestamp": new Date().toISOString(),
        "box-signature-algorithm": "HmacSHA256",
        "box-signature-version": "1",
      };
      headers["box-signature-primary"] = await computeWebhookSignature(body, headers, secret);
      return { headers };
    },
    // The second key has the header of its own in which the router's `event` signs.
    verify: ({ secret, body, headers }) =>
      WebhooksManager.validateMessage(body, headers, secret, { secondaryKey: secret }),
  },
  {
    vendor: "chargebee",
    library: "chargebee",
    verify: async ({ secret, headers }) => {
      await basicAuthValidator((user, password) => `${user}:${password}` === secret)(headers);
    },
  },
  {
    vendor: "zoom",
    library: "@zoom/rivet",
    verify: async ({ secret, body, headers }) => {
      const receiver = new AwsLambdaReceiver({ webhooksSecretToken: secret });
      const event = { headers, body, isBase64Encoded: false };
      return (await receiver.start()(event, {})).statusCode === 200;
    },
  },
  {
    vendor: "braintree",
    library: "braintree",
    sign: ({ secret }) => {
      const { SubscriptionWentPastDue } = braintree.WebhookNotification.Kind;
      const fields = braintreeGateway(secret).webhookTesting.sampleNotification(SubscriptionWentPastDue, "s-1");
      const headers = { "content-type": "application/x-www-form-urlencoded" };
      return { headers, body: new URLSearchParams(fields).toString() };
    },
    verify: ({ secret, body }) => {
      const { bt_signature: signature, bt_payload: payload } = form(body);
      return braintreeGateway(secret).webhookNotification.parse(signature, payload);
    },
  },
];

const verdict = async (library, delivery) => {
  try {
    return (await library.verify(delivery)) === false ? "refused" : "accepted";
  } catch (error) {
    return `refused: ${error.message ?? error}`;
  }
};

const print = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);

print(LIBRARIES.map(({ vendor, library }) => [vendor, library]));
for await (const line of createInterface({ input: process.stdin })) {
  const delivery = JSON.parse(line);
  const answers = [];
  for (const one of LIBRARIES.filter(({ vendor }) => vendor === delivery.vendor)) {
    const { library } = one;
    if (delivery.headers) {
      answers.push({ library, verdict: await verdict(one, delivery) });
    } else if (one.sign) {
      answers.push({ library, ...(await one.sign(delivery)) });
    }
  }
  print(answers);
}
