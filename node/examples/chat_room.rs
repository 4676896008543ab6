//! A chat room in Rust: `cargo run -p sluice-node --example chat_room`, then join `room:lobby` at
//! `ws://127.0.0.1:4000/socket` with any Phoenix client and the parameter `user`.

use serde_json::{Value, json};
use sluice_node::{
    channel::{
        Accept, Answer, Channel, Connect, Ctx, End, Handled, JoinError, Message, Mount, Payload,
        Refused, Router, UserSocket,
    },
    server::Builder,
};
use sluice_node_api::config::NodeConfig;
use tokio_util::sync::CancellationToken;

/// Lets in whoever says a name.
struct Users;

/// The name of a socket's user.
#[derive(Clone)]
struct User(String);

impl UserSocket for Users {
    async fn connect(&self, connect: &Connect) -> Result<Accept, Refused> {
        let user = connect.param("user").ok_or_else(Refused::silently)?;
        Ok(Accept::new().id(format!("users:{user}")).assign(User(user.to_owned())))
    }
}

/// One user in one room.
struct Room {
    user: String,
}

/// What a room tells itself.
enum Info {
    AfterJoin,
}

impl Channel for Room {
    type Info = Info;

    async fn join(_: Payload, ctx: &Ctx<Info>) -> Result<(Self, Payload), JoinError> {
        let User(user) = ctx.socket().assign::<User>().ok_or("a socket without a user")?.clone();
        if ctx.topic().ends_with(":private") {
            return Err(JoinError::refuse(json!({"reason": "unauthorized"})));
        }
        // Nothing can be sent before the join is accepted.
        ctx.send(Info::AfterJoin);
        Ok((Self { user }, Payload::empty()))
    }

    async fn handle_info(&mut self, Info::AfterJoin: Info, ctx: &Ctx<Info>) -> Handled {
        ctx.track(&self.user, serde_json::Map::new())?;
        ctx.push("presence_state", ctx.presences())?;
        Ok(Answer::None)
    }

    async fn handle_in(&mut self, message: Message, ctx: &Ctx<Info>) -> Handled {
        if message.event != "new_msg" {
            return Ok(Answer::error(json!({"reason": "unknown event"})));
        }
        let said: Value = message.payload.parse()?;
        ctx.broadcast("new_msg", json!({"user": self.user, "body": said["body"]}))?;
        Ok(Answer::ok(()))
    }

    async fn terminate(&mut self, end: End, _: &Ctx<Info>) {
        println!("{} is gone: {end:?}", self.user);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut config = NodeConfig::default();
    config.listen.http = "127.0.0.1:4000".into();
    let mount = Mount::new("/socket", Users).channels(Router::new().channel::<Room>("room:*"));
    let shutdown = CancellationToken::new();
    let (hub, address) = Builder::new(&config).mount(mount).start(shutdown.clone()).await?;
    println!("ws://{address}/socket");
    tokio::signal::ctrl_c().await?;
    shutdown.cancel();
    hub.stopped().await;
    Ok(())
}
