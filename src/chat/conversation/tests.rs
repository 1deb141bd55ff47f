use super::*;
use crate::generate::FinishReason;
use crate::kernels::attention::KvPrecision;
use crate::model::Precision;
use crate::sampling::SamplingParams;

const MESSAGES: [&str; 4] =
    ["Who lives in the castle?", "And then?", "What did the king say to her?", "Why?"];

fn fable() -> Hornbook {
    Hornbook::open("fable").unwrap()
}

fn options(max_tokens: usize, seed: u64) -> Options {
    let sampling = SamplingParams { temperature: 0.7, seed, ..SamplingParams::default() };
    Options { sampling, max_tokens: Some(max_tokens), ..Options::default() }
}

fn conversation(hornbook: &Hornbook, options: Options) -> Conversation<'_> {
    Conversation::new(hornbook, ChatTemplate::transcript().unwrap(), options).unwrap()
}

/// A chat with a custom template.
fn with_template<'h>(hornbook: &'h Hornbook, template: &str) -> Conversation<'h> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.jinja");
    std::fs::write(&file, template).unwrap();
    Conversation::new(hornbook, ChatTemplate::open(&file).unwrap(), options(12, 1)).unwrap()
}

/// The whole text of an answer.
fn full_text(answer: Result<Answer>) -> String {
    answer.unwrap().map(Result::unwrap).collect()
}

fn tokens(conversation: &Conversation) -> Vec<u32> {
    conversation.last_stats().unwrap().tokens.clone()
}

/// The prompt of the last answer.
fn last_prompt(conversation: &Conversation) -> Vec<u32> {
    let (_, messages) = conversation.messages().split_last().unwrap();
    conversation.fit_to_context(messages).unwrap().1
}

#[test]
fn turn_computes_only_new_tokens() {
    let hornbook = fable();
    let mut chat = conversation(&hornbook, options(24, 3));
    let mut before = 0;
    for (i, message) in MESSAGES.iter().enumerate() {
        let answer_text = full_text(chat.send(*message));
        let stats = chat.last_stats().unwrap().clone();
        assert_eq!(stats.prompt_tokens, stats.reused_tokens + stats.prefilled_tokens);
        assert_eq!(chat.session.len(), chat.cached_tokens.len());
        assert_eq!(chat.context_usage(), (stats.prompt_tokens + stats.tokens.len() - 1, 512));
        assert_eq!(chat.messages().last().unwrap(), &ChatMessage::new("assistant", &*answer_text));
        if i == 0 {
            assert_eq!(stats.reused_tokens, 0);
        } else {
            // Only the last message is computed, and the answer before it if it is tokenized differently than
            // it was generated.
            let new = hornbook.encode(&format!("\nUser: {message}\nAssistant:")).unwrap().len();
            assert!(stats.reused_tokens >= before, "{stats:?}");
            assert!(stats.prefilled_tokens <= new + 24, "{stats:?}");
        }
        before = stats.prompt_tokens;
    }
    // An answer that is tokenized as it was generated is not computed again.
    let mut chat = with_template(&hornbook, "{% for m in messages %}{{ m.content }}{% endfor %}");
    chat.options.sampling.temperature = 0.0;
    full_text(chat.send("Once upon a time"));
    let (prompt, answer) = (chat.last_stats().unwrap().prompt_tokens, tokens(&chat).len());
    full_text(chat.send(" and then"));
    let stats = chat.last_stats().unwrap();
    assert_eq!((prompt, answer), (4, 12));
    assert_eq!(
        (stats.reused_tokens, stats.prefilled_tokens),
        (15, 3),
        "the answer's last token was not computed"
    );
}

#[test]
fn fable_template_reuses_the_answer() {
    let hornbook = fable();
    let mut chat =
        Conversation::new(&hornbook, ChatTemplate::for_model(&hornbook).unwrap(), options(40, 6)).unwrap();
    for (i, message) in MESSAGES.iter().enumerate() {
        full_text(chat.send(*message));
        let new = hornbook.encode(&format!("\" said the old woman.\n\n\"{message}\" asked the child.\n\n\""));
        let stats = chat.last_stats().unwrap();
        assert!(i == 0 || stats.prefilled_tokens <= new.unwrap().len() + 2, "turn {i}: {stats:?}");
    }
}

#[test]
fn answer_is_independent_of_kv_cache_state() {
    let hornbook = fable();
    for kv_precision in [KvPrecision::F32, KvPrecision::F16, KvPrecision::Int8] {
        let options = Options { kv_precision: Some(kv_precision), ..options(40, 5) };
        let mut chat = conversation(&hornbook, options.clone());
        for (i, message) in MESSAGES.iter().enumerate() {
            let before = chat.messages().to_vec();
            let answer_text = full_text(chat.send(*message));
            let mut fresh = conversation(&hornbook, options.clone());
            fresh.set_messages(before).unwrap();
            assert_eq!(full_text(fresh.send(*message)), answer_text);
            assert_eq!(tokens(&fresh), tokens(&chat));
            assert_eq!(fresh.last_stats().unwrap().reused_tokens, 0);
            // The same by `Hornbook::generate`, each answer with its own random number stream.
            let stop = chat.template().stop().to_vec();
            let with_stop = Options { stop, ..options.clone() };
            let mut generation = hornbook.generate(&last_prompt(&chat), &with_stop).unwrap();
            (0..i).for_each(|_| generation.restart().unwrap());
            generation.by_ref().for_each(|token| drop(token.unwrap()));
            assert_eq!(generation.generated(), tokens(&chat), "turn {i}");
        }
    }
}

#[test]
fn oldest_messages_are_dropped_when_context_is_full() {
    let hornbook = fable();
    let mut chat = conversation(&hornbook, options(40, 2));
    chat.set_system(Some("A tale of a king.")).unwrap();
    let start = hornbook.encode("A tale of a king.\n\nUser:").unwrap();
    let mut dropped = 0;
    for i in 0..16 {
        let before = chat.messages().to_vec();
        let answer_text = full_text(chat.send(format!("{} {i} times?", MESSAGES[i % 4])));
        let stats = chat.last_stats().unwrap().clone();
        let (now_dropped, prompt) =
            chat.fit_to_context(&chat.messages()[..chat.messages().len() - 1]).unwrap();
        assert_eq!((now_dropped, prompt.len()), (stats.dropped_messages, stats.prompt_tokens));
        assert!(prompt.starts_with(&start) && prompt.len() + 40 <= 512);
        assert!(now_dropped >= dropped && now_dropped % 2 == 0, "whole turns, never fewer");
        // Not much more than a third of the context is dropped at once.
        assert!(now_dropped == 0 || prompt.len() > 512 - 512usize.div_ceil(3) - 3 * 65, "{}", prompt.len());
        if now_dropped > dropped {
            let mut fresh = conversation(&hornbook, options(40, 2));
            fresh.set_messages(before).unwrap();
            assert_eq!(full_text(fresh.send(format!("{} {i} times?", MESSAGES[i % 4]))), answer_text);
            assert_eq!(tokens(&fresh), tokens(&chat));
        }
        dropped = now_dropped;
    }
    assert!(dropped > 4, "{dropped}");
    assert_eq!(chat.messages().len(), 1 + 2 * 16, "dropped messages stay in the conversation");
    chat.reset();
    assert_eq!((chat.messages().len(), chat.system()), (1, Some("A tale of a king.")));
}

#[test]
fn full_context_is_rarely_recomputed() {
    let hornbook = fable();
    let mut chat = conversation(&hornbook, options(24, 2));
    let (mut dropped, mut full, mut recomputed, mut prefilled) = (0, 0, 0, 0);
    for i in 0..40 {
        full_text(chat.send(MESSAGES[i % 4]));
        let stats = chat.last_stats().unwrap();
        let new = hornbook.encode(&format!("\nUser: {}\nAssistant:", MESSAGES[i % 4])).unwrap().len();
        if stats.dropped_messages > dropped {
            recomputed += 1;
        } else {
            assert!(i == 0 || stats.prefilled_tokens <= new + 24, "turn {i}: {stats:?}");
        }
        if stats.dropped_messages > 0 {
            full += 1;
            prefilled += stats.prefilled_tokens;
        }
        dropped = stats.dropped_messages;
    }
    assert!(recomputed > 1 && full > 4 * recomputed, "{recomputed} of {full} turns recompute the context");
    assert!(prefilled < 100 * full, "{prefilled} tokens prefilled in {full} turns");
}

#[test]
fn retry_uses_the_next_seed() {
    let hornbook = fable();
    let mut chat = conversation(&hornbook, options(30, 7));
    assert_eq!(chat.retry().map(drop).unwrap_err().to_string(), "there is no message to answer yet");
    assert_eq!(chat.options.sampling.seed, 7);
    let first = full_text(chat.send(MESSAGES[0]));
    let second = full_text(chat.retry());
    let stats = chat.last_stats().unwrap();
    assert_eq!((stats.prefilled_tokens, stats.reused_tokens), (1, stats.prompt_tokens - 1));
    assert_eq!((chat.messages().len(), chat.options.sampling.seed), (2, 8));
    assert_ne!(first, second);
    let mut fresh = conversation(&hornbook, options(30, 8));
    assert_eq!(full_text(fresh.send(MESSAGES[0])), second);
    // A message without an answer gets its first.
    let unanswered = vec![ChatMessage::new("user", MESSAGES[0])];
    fresh.set_messages(unanswered).unwrap();
    assert_eq!((full_text(fresh.retry()), fresh.options.sampling.seed), (second, 8));
}

#[test]
fn stopped_answer_is_kept_and_dropped_answer_is_discarded() {
    let hornbook = fable();
    let mut chat = conversation(&hornbook, options(60, 4));
    let mut answer = chat.send(MESSAGES[0]).unwrap();
    let mut answer_text = String::new();
    while answer_text.len() < 12 {
        answer_text += &answer.next().unwrap().unwrap();
    }
    answer_text += &answer.finish();
    assert_eq!(chat.messages()[1], ChatMessage::new("assistant", answer_text));
    assert_eq!(chat.last_stats().unwrap().finish_reason, None);
    full_text(chat.send(MESSAGES[1]));
    assert_eq!(chat.messages().len(), 4);
    // Stopped before the first token, and with max_tokens 0.
    assert_eq!(chat.send("Well?").unwrap().finish(), "");
    assert_eq!(chat.messages()[5], ChatMessage::new("assistant", ""));
    chat.options.max_tokens = Some(0);
    assert_eq!(full_text(chat.send("Well?")), "");
    assert_eq!(chat.last_stats().unwrap().finish_reason, Some(FinishReason::Length));
    // A dropped answer is discarded.
    chat.options.max_tokens = Some(9);
    drop(chat.send("Who?").unwrap());
    assert_eq!(chat.messages().last(), Some(&ChatMessage::new("user", "Who?")));
    let answer = full_text(chat.retry());
    assert_eq!(chat.messages().last(), Some(&ChatMessage::new("assistant", answer)));
}

#[test]
fn drafted_answers_are_the_same() {
    let (plain, drafting) = (fable(), fable().with_draft(Precision::Int4).unwrap());
    let mut chats = [&plain, &drafting].map(|hornbook| conversation(hornbook, options(24, 3)));
    chats[1].speculation.fix_draft_len(4);
    for message in MESSAGES {
        let [plain, drafted] = chats.each_mut().map(|chat| (full_text(chat.send(message)), tokens(chat)));
        assert_eq!(plain, drafted);
    }
    let [plain, drafted] = chats.each_mut().map(|chat| full_text(chat.retry()));
    assert_eq!(plain, drafted);
    let stats = chats[1].speculation.stats();
    assert!(stats.accepted_tokens > 20 && stats.drafted_tokens > stats.accepted_tokens, "{stats:?}");
}

#[test]
fn rejected_calls_leave_the_conversation_unchanged() {
    let hornbook = fable();
    let mut chat = conversation(&hornbook, options(10, 1));
    full_text(chat.send(MESSAGES[0]));
    let (messages, cached_tokens) = (chat.messages().to_vec(), chat.cached_tokens.clone());
    let error = chat.send("word ".repeat(600)).map(drop).unwrap_err().to_string();
    assert!(
        error.starts_with("the message is too long: with it alone the prompt is ")
            && error.contains("at most 512, "),
        "{error}"
    );
    let error = chat.set_messages(vec![ChatMessage::new("tool", "x")]).unwrap_err().to_string();
    assert!(error.starts_with("messages[0].role: found \"tool\""), "{error}");
    chat.options.sampling.top_p = 2.0;
    assert!(chat.send("Hello").map(drop).unwrap_err().to_string().starts_with("top_p: found 2"));
    assert!(chat.retry().is_err());
    assert_eq!((chat.messages(), &chat.cached_tokens), (&messages[..], &cached_tokens));
    assert_eq!(chat.options.sampling.seed, 1);
    // A message that leaves some room, but less than is reserved for an answer.
    chat.options = options(200, 1);
    full_text(chat.send("word ".repeat(400)));
    assert_eq!(chat.last_stats().unwrap().dropped_messages, 2);

    let mut own = with_template(
        &hornbook,
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}\
         {{ m.content }}{% endfor %}",
    );
    assert_eq!(own.set_system(Some("x")).unwrap_err().to_string(), "chat template: no system");
    assert_eq!((own.messages().len(), own.system()), (0, None));
    assert!(!full_text(own.send("The king")).is_empty());

    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-gelu-new");
    let bare = Hornbook::open(folder).unwrap();
    let error = Conversation::new(&bare, ChatTemplate::transcript().unwrap(), options(1, 1)).map(drop);
    assert!(error.unwrap_err().to_string().contains("has no tokenizer"));
}
